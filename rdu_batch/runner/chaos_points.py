"""Where a run can be hurt, and how: the points of a chaos sweep and the trials made of them; pure.

A point is one call of a run: of its output's store, or of a session at a row's begin or end. Points
are numbered in the order in which an undisturbed run passes them, so that a person can name one.
Some lie in a run that goes on after a kill: publishing again what was committed, listing what is
there. Does not: run anything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rdu_batch.errors import UsageError
from rdu_batch.runner.run_layout import COMMITS_FOLDER, SEGMENTS_FOLDER
from rdu_batch.storage.failpoint import WRITES, Act, Call, Role, Strike

SESSION_CALLS = ("prefill", "decode")


class Fault(StrEnum):
    """What happens at a point; the rows of the matrix."""

    DRIVER_BEFORE = "driver killed before"
    DRIVER_AFTER = "driver killed after"
    WORKER_BEFORE = "worker killed before"
    WORKER_AFTER = "worker killed after"
    UNAVAILABLE = "503"
    REPLY_LOST = "reply lost"
    REPLY_DENIED = "reply lost, asked again"
    TORN = "torn write"
    STALE_LISTING = "stale listing"
    EMPTY_LISTING = "empty listing"


#: What each fault means, for people.
MEANING = {
    Fault.DRIVER_BEFORE: "the process gets SIGKILL just before the call",
    Fault.DRIVER_AFTER: "the process gets SIGKILL just after the call",
    Fault.WORKER_BEFORE: "the worker that makes the call is lost just before it",
    Fault.WORKER_AFTER: "the worker that makes the call is lost just after it",
    Fault.UNAVAILABLE: "the store answers 503, nothing was done",
    Fault.REPLY_LOST: "the store did it, the reply is an error",
    Fault.REPLY_DENIED: "the store created it, its client asked again and heard: another was first",
    Fault.TORN: "half of the bytes are there under the name, the process gets SIGKILL",
    Fault.STALE_LISTING: "a listing leaves out the object that was written last",
    Fault.EMPTY_LISTING: "a listing leaves out everything",
}
_ACTS = {
    Fault.DRIVER_BEFORE: Act.KILL_BEFORE,
    Fault.DRIVER_AFTER: Act.KILL_AFTER,
    Fault.WORKER_BEFORE: Act.BREAK_BEFORE,
    Fault.WORKER_AFTER: Act.BREAK_AFTER,
    Fault.UNAVAILABLE: Act.FAIL,
    Fault.REPLY_LOST: Act.LOSE,
    Fault.REPLY_DENIED: Act.DENY,
    Fault.TORN: Act.TEAR,
    Fault.STALE_LISTING: Act.HIDE_NEWEST,
    Fault.EMPTY_LISTING: Act.HIDE_ALL,
}
#: Faults that end the driver's process.
KILLS_DRIVER = frozenset({Fault.DRIVER_BEFORE, Fault.DRIVER_AFTER, Fault.TORN})


@dataclass(frozen=True)
class Point:
    """One call of a run, told from all others by what it is rather than by when it comes."""

    number: int
    role: str
    operation: str
    #: Without what differs from run to run; see ``failpoint.plain_name``.
    name: str
    #: Which of the calls that are alike, counted from 1.
    occurrence: int
    #: How many objects a listing gave here.
    num_listed: int = 0
    #: The point behind which an earlier run was killed; None for points of a first run.
    killed_at: Point | None = None

    def __str__(self) -> str:
        """For people: ``worker create_once _run/commits/00001.json``."""
        what = f"{self.role} {self.operation} {self.name or '(the whole output)'}"
        if self.occurrence > 1:
            what += f", number {self.occurrence}"
        if self.killed_at is not None:
            what += f", of a run that goes on after a kill behind {self.killed_at.number}"
        return what

    def strike(self, fault: Fault) -> Strike:
        """This fault at this point, for a failpoint."""
        return Strike(
            Role(self.role), self.operation, re.escape(self.name), self.occurrence, _ACTS[fault]
        )


@dataclass(frozen=True)
class Trial:
    """One fault at one point."""

    fault: Fault
    point: Point

    @property
    def label(self) -> str:
        """What ``--only`` takes."""
        return f"{self.fault} @ {self.point.number}"


def points_of(calls: Iterable[Call], *, killed_at: Point | None = None) -> list[Point]:
    """The points of a run from the calls it made, in their order, numbered from 1.

    Of a session's calls only a row's first and last one are points: between them nothing that
    outlives a process changes.
    """
    calls = list(calls)
    seen: Counter[tuple[str, str, str]] = Counter()
    points: list[Point] = []
    for index, call in enumerate(calls):
        like = call.role, call.operation, call.plain_name
        seen[like] += 1
        follows = calls[index + 1].operation if index + 1 < len(calls) else ""
        if call.operation == "decode" == follows:
            continue
        points.append(Point(len(points) + 1, *like, seen[like], call.num_listed, killed_at))
    return points


def places_to_kill(points: Sequence[Point]) -> list[Point]:
    """Where to kill a first run, so that the next has all there is to go on from.

    Behind the commit record of a middle shard, which is not published then; behind the last
    segment, whose shard is not sealed; behind the last publication, so that only the end is left.
    """
    commits = [p for p in points if p.operation == "create_once" and _in(p, COMMITS_FOLDER)]
    segments = [p for p in points if p.operation in WRITES and _in(p, SEGMENTS_FOLDER)]
    published = [p for p in points if p.operation == "copy"]
    chosen = [commits[len(commits) // 2 : len(commits) // 2 + 1], segments[-1:], published[-1:]]
    return sorted((one for some in chosen for one in some), key=lambda point: point.number)


def without_known(points: Iterable[Point], known: Iterable[Point]) -> list[Point]:
    """Of the points of a run that goes on those that no other such run has; numbered on.

    All of them take an epoch and write a manifest in the same way. A listing is never known: what
    it gives is what an earlier run left.
    """
    known = list(known)
    first_number = max((point.number for point in known), default=0) + 1
    seen = {_like(point) for point in known if point.killed_at is not None}
    new = [p for p in points if p.operation == "list_objects" or _like(p) not in seen]
    return [replace(point, number=first_number + at) for at, point in enumerate(new)]


def _like(point: Point) -> tuple[str, str, str, int]:
    return point.role, point.operation, point.name, point.occurrence


def applies(fault: Fault, point: Point) -> bool:
    """Whether a fault can happen at a point."""
    if fault in (Fault.DRIVER_BEFORE, Fault.DRIVER_AFTER):
        return True
    if fault in (Fault.WORKER_BEFORE, Fault.WORKER_AFTER):
        return point.role == Role.WORKER
    if point.operation in SESSION_CALLS:
        return False
    return {
        Fault.UNAVAILABLE: True,
        Fault.REPLY_LOST: point.operation in (*WRITES, "delete"),
        Fault.REPLY_DENIED: point.operation == "create_once",
        Fault.TORN: point.operation in WRITES and point.operation != "create_once",
        Fault.STALE_LISTING: point.num_listed > 0,
        # Where one object is there, leaving out the newest leaves out all.
        Fault.EMPTY_LISTING: point.num_listed > 1,
    }[fault]


def trials_of(points: Iterable[Point]) -> Iterator[Trial]:
    """Every fault at every point it applies to, fault by fault."""
    points = list(points)
    return (Trial(fault, point) for fault in Fault for point in points if applies(fault, point))


def choose(trials: Sequence[Trial], only: Sequence[str]) -> list[Trial]:
    """The trials that ``--only`` names, in its order; all of them if it names none.

    Args:
        trials: of the whole sweep.
        only: ``FAULT @ NUMBER`` or ``FAULT`` each, checked by ``fault_in``.

    Raises:
        UsageError: the fault cannot happen at that point.
    """
    if not only:
        return list(trials)
    chosen: list[Trial] = []
    for text in only:
        of_fault = [trial for trial in trials if trial.fault == fault_in(text)]
        named = [trial for trial in of_fault if text in (trial.label, str(trial.fault))]
        if not named:
            numbers = [trial.point.number for trial in of_fault]
            where = f"from {numbers[0]} to {numbers[-1]}" if numbers else ""
            raise UsageError(
                f"--only {text!r}: there is no such trial; that fault can happen at "
                f"{len(numbers)} points {where}, not at this one"
            )
        chosen += named
    return chosen


def fault_in(text: str) -> Fault:
    """The fault that a text of ``--only`` names.

    Raises:
        UsageError: there is no such fault.
    """
    name = text.rpartition("@")[0].strip() or text
    if name not in list(Fault):
        raise UsageError(
            f"--only {text!r}: there is no such fault; wanted 'FAULT @ NUMBER' or 'FAULT', where "
            f"FAULT is one of: {'; '.join(Fault)}"
        )
    return Fault(name)


def _in(point: Point, folder: str) -> bool:
    return point.name.startswith(f"{folder}/")
