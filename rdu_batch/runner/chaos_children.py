"""Work in forked processes that may die at any instant; their results come back as JSON.

A fork costs milliseconds where a new interpreter costs a second, and the child is a process of its
own all the same: SIGKILL leaves no ``finally`` behind. The price: whoever forks must have no
threads, so it opens no remote store and imports neither torch nor Ray; a child may.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ChildEnd:
    """How a child ended, and what its work came to."""

    #: What ended it; 0 if it ended by itself.
    signal: int
    #: Of its work, as JSON values; None if it did not get that far.
    result: Any
    #: It ran past its time and was killed for that.
    is_late: bool = False
    #: The end of what it wrote to standard error.
    stderr: str = ""


@dataclass
class _Child:
    index: int
    pid: int
    pidfd: int
    folder: Path
    ends_s: float


def in_child(work: Callable[[], Any], folder: Path, *, timeout_s: float) -> ChildEnd:
    """Do one piece of work in a child and wait for its end.

    Args:
        work: gives JSON values.
        folder: of its own, on the local disk; made if need be.
        timeout_s: the child is killed after so many seconds.
    """
    child = _fork(0, work, folder, timeout_s, leads=False)
    try:
        select.select([child.pidfd], [], [], timeout_s)
        return _end_of(child)
    finally:
        os.close(child.pidfd)


def each_in_child(
    works: Sequence[Callable[[], Any]], folder: Path, *, at_once: int, timeout_s: float
) -> Iterator[tuple[int, ChildEnd]]:
    """Do pieces of work in children, some at the same time; gives each with its index at its end.

    The children lead process groups: when the caller stops early, they end with all they started.
    """
    waiting = list(enumerate(works))[::-1]
    running: dict[int, _Child] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                index, work = waiting.pop()
                child = _fork(index, work, folder / f"work-{index}", timeout_s, leads=True)
                running[child.pidfd] = child
            next_s = min(child.ends_s for child in running.values()) - time.monotonic()
            ready, _, _ = select.select(list(running), [], [], max(0.0, next_s))
            late = [fd for fd, child in running.items() if child.ends_s <= time.monotonic()]
            for pidfd in {*ready, *late}:
                child = running.pop(pidfd)
                end = _end_of(child)
                os.close(pidfd)
                yield child.index, end
    finally:
        for pidfd, child in running.items():
            _kill_group(child.pid)
            os.waitpid(child.pid, 0)
            os.close(pidfd)


def _fork(
    index: int, work: Callable[[], Any], folder: Path, timeout_s: float, *, leads: bool
) -> _Child:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result").unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_child(work, folder, leads=leads)
    return _Child(index, pid, os.pidfd_open(pid), folder, time.monotonic() + timeout_s)


def _be_child(work: Callable[[], Any], folder: Path, *, leads: bool) -> None:
    """Never returns: what stands above this on the stack is the parent's business."""
    try:
        if leads:
            os.setpgid(0, 0)
        log = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # What the parent's own streams were replaced by (a test's capture) must not be written to.
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        (folder / "result.new").write_text(json.dumps(work()))
        (folder / "result.new").rename(folder / "result")
    except BaseException:  # noqa: BLE001 - nobody is above; the parent finds no result
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(0)


def _end_of(child: _Child) -> ChildEnd:
    """Wait for a child that is about to end; kill one that is late."""
    is_late = not select.select([child.pidfd], [], [], 0)[0]
    if is_late:
        os.kill(child.pid, signal.SIGKILL)
    _, status = os.waitpid(child.pid, 0)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    path = child.folder / "result"
    result = json.loads(path.read_text()) if path.exists() else None
    log = child.folder / "stderr"
    stderr = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    return ChildEnd(number, result, is_late, stderr)


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
