"""Processes as /proc shows them, and signals that reach exactly the one that is meant (Linux)."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SESSION_MODULE = b"rdu_batch.runner.session_process"


@dataclass(frozen=True)
class SessionOf:
    """A session process that works on an output, and the actor above it."""

    pid: int
    actor: int
    epoch: int

    def is_running(self) -> bool:
        """Whether neither of the two has ended, perhaps without having been waited for."""
        return all(state_of(pid) not in ("Z", "X", "") for pid in (self.pid, self.actor))


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 120.0) -> None:
    """Poll until a condition holds; an AssertionError if it never does."""
    latest_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < latest_s, f"never came: {what}"
        time.sleep(0.02)


def sessions_of(head: int, output: str) -> list[SessionOf]:
    """The session processes below ``head`` that write to an output, by process id."""
    found = []
    for pid, parent in sorted(_below(head)):
        # A process may end while it is looked at.
        with suppress(OSError, ValueError, IndexError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if _SESSION_MODULE not in words:
                continue
            context = json.loads(Path(words[words.index(b"-m") + 2].decode()).read_text())
            if context["spec"]["output"]["url"] == output:
                found.append(SessionOf(pid, parent, int(context["epoch"])))
    return found


def below(head: int) -> list[int]:
    """Process ids of all descendants of a process."""
    return [pid for pid, _ in _below(head)]


def state_of(pid: int) -> str:
    """One letter, as ``proc(5)`` has them; empty if there is no such process."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def _below(head: int) -> Iterator[tuple[int, int]]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields:
            children.setdefault(int(fields[1]), []).append(int(path.name))
    parents = [head]
    while parents:
        parent = parents.pop()
        for pid in children.get(parent, []):
            yield pid, parent
            parents.append(pid)


def _stat(pid: int) -> list[str]:
    """State, parent and so on: the fields after the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []


class Handle:
    """A process that a number cannot stand for: the number may be given again, this may not."""

    def __init__(self, pid: int) -> None:
        """Take hold of it. ProcessLookupError: there is none."""
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False if the process has ended."""
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return False
        return True

    def has_ended(self) -> bool:
        """Whether it has ended, waited for or not."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def take_hold(pid: int, is_still: Callable[[], bool]) -> Handle | None:
    """A handle of the process that is meant; None if it ended since it was found.

    Args:
        pid: as it was found.
        is_still: whether that number still is the process that is meant; asked once it is held.
    """
    try:
        handle = Handle(pid)
    except ProcessLookupError:
        return None
    if is_still():
        return handle
    handle.close()
    return None
