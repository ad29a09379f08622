"""What tells a process from every other, so that a later one can say for sure that it is gone.

A number alone does not: it is given again after a while, and it means another process in another
container or on another machine. So a mark holds the machine's boot, the namespaces in which number
and start time mean something, the number, and the start time.

Promises: ``is_gone`` and ``is_alive`` are True only where this process can know; where it cannot,
False.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
#: States of a process that does nothing any more and only waits for its parent to take note.
_ENDED_STATES = frozenset("ZXx")


@dataclass(frozen=True)
class ProcessMark:
    """One process, as the machine that it runs on knows it."""

    boot_id: str
    namespaces: str
    pid: int
    #: Clock ticks from the machine's boot to the start of the process.
    started_ticks: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> ProcessMark | None:
        """Read back what ``to_json`` wrote; None if this is nothing of the kind."""
        try:
            return cls(
                str(document["boot_id"]),
                str(document["namespaces"]),
                int(document["pid"]),
                int(document["started_ticks"]),
            )
        except (TypeError, KeyError, ValueError):
            return None


def mark_of_this_process() -> ProcessMark | None:
    """The mark of this process; None where the system does not tell (no Linux, a hidden /proc)."""
    pid = os.getpid()
    place = _place_of(pid)
    process = _read_stat(pid)
    if place is None or process is None:
        return None
    return ProcessMark(*place, pid, process[1])


def is_gone(mark: ProcessMark) -> bool:
    """Whether the process has ended; False if it lives, or if it cannot be known from here."""
    if _place_of(os.getpid()) != (mark.boot_id, mark.namespaces):
        return False
    try:
        # Signal 0 only asks. /proc may hide the processes of other users, the kernel does not.
        os.kill(mark.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    found = _read_stat(mark.pid)
    if found is None:
        return False
    state, started_ticks = found
    return state in _ENDED_STATES or started_ticks != mark.started_ticks


def is_alive(mark: ProcessMark) -> bool:
    """Whether the process lives on this machine; False if it does not, or it cannot be known."""
    if _place_of(os.getpid()) != (mark.boot_id, mark.namespaces):
        return False
    found = _read_stat(mark.pid)
    return found is not None and found[0] not in _ENDED_STATES and found[1] == mark.started_ticks


def _place_of(own_pid: int) -> tuple[str, str] | None:
    """Boot and namespaces of this process; None if /proc does not speak of them."""
    try:
        # A /proc of another namespace, mounted here, would number processes in its own way.
        if os.readlink(_PROC / "self") != str(own_pid):  # noqa: PTH115 - the text is wanted
            return None
        boot_id = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        kinds = [kind for kind in ("pid", "time") if (_PROC / "self/ns" / kind).is_symlink()]
        namespaces = " ".join(os.readlink(_PROC / "self/ns" / kind) for kind in kinds)  # noqa: PTH115
    except OSError:
        return None
    return (boot_id, namespaces) if boot_id and "pid" in kinds else None


def _read_stat(pid: int) -> tuple[str, int] | None:
    """State and start of a process. The name before them may hold blanks and parentheses."""
    try:
        fields = (
            (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        )
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
