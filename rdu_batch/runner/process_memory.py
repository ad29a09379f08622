"""How much memory a process has, and which one the kernel kills when there is none left (Linux).

What counts for a limit is the memory that is the process's own: ``RssAnon`` and what of it was
swapped out. Not the address space, which torch, CUDA and thread stacks reserve by the gigabyte and
never touch, nor the resident size: weights are files mapped into memory, shared by all sessions of
a machine, and the kernel may drop their pages at any time. ``RLIMIT_AS`` and ``RLIMIT_DATA`` limit
the former, so the watcher looks and kills. ``RssShmem`` is left out too: it is where the kernel
counts weights whose files lie in a tmpfs.

Where there is no ``/proc`` nothing is known, and nothing is limited.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_OOM_SCORE = Path("/proc/self/oom_score_adj")
#: Killed before all others when memory runs out; the highest that there is. See proc(5).
_FIRST_TO_BE_KILLED = 1000
#: Of what watches it; Ray gives its own workers the highest.
_WATCHER = 900


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of one process at one moment."""

    #: Private memory, resident or swapped out; mapped files not counted.
    own_bytes: int
    #: Most that was ever resident at once, mapped files included.
    peak_bytes: int


def read_memory(pid: int) -> ProcessMemory | None:
    """Look at a process; None if it is gone, has ended, or the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return parse_status(status)


def parse_status(status: str) -> ProcessMemory | None:
    """Read the text of ``/proc/PID/status``; None for a process without memory of its own."""
    kilobytes = {}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "VmSwap", "VmHWM"):
            kilobytes[name] = int(value.split()[0])
    if "VmHWM" not in kilobytes:
        return None
    own = kilobytes.get("RssAnon", 0) + kilobytes.get("VmSwap", 0)
    return ProcessMemory(own * 1024, kilobytes["VmHWM"] * 1024)


def be_killed_first() -> None:
    """Ask the kernel to kill this process first when memory runs out."""
    with suppress(OSError):
        _OOM_SCORE.write_text(str(_FIRST_TO_BE_KILLED))


def outlive_the_session() -> None:
    """Make this process, which watches one that is to be killed first, no candidate beside it.

    Best effort: a system may forbid a process to become less of a candidate than it was made.
    """
    with suppress(OSError, ValueError):
        if int(_OOM_SCORE.read_text()) > _WATCHER:
            _OOM_SCORE.write_text(str(_WATCHER))
