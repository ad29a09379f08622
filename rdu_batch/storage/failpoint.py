"""Failpoints: faults on purpose, at one chosen call of an output's store or of a session.

A failpoint is armed by the environment variable ``RDU_BATCH_FAULT``, which every process of a run
inherits: the driver, local Ray workers, session processes. Whoever opens an output while it is set
gets a ``faults.FaultyStore`` around it, and says so on standard error. Nothing sets it but
``rdu-batch chaos`` and tests.

The variable holds JSON: ``Failpoint.to_json``. Its folder, on the local disk, keeps the journal of
all calls of a trial, and the marks of one run: who its driver is, which occurrences of the call
were seen (by any of its processes), that the fault was met.

Promises: a fault strikes at most once a run; a call is in the journal before anybody dies of it.
Does not: decide what to break, or judge what came of it (``runner/chaos_*.py``).
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from rdu_batch.errors import ObjectMissing, SessionBroken, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Arms a failpoint in every process that inherits it.
FAULT_VARIABLE = "RDU_BATCH_FAULT"
JOURNAL = "journal.jsonl"
#: In the folder of marks: written when the fault was met.
STRUCK = "struck"
_DRIVER = "driver.pid"
#: Digests and random names: they differ from run to run.
_VARYING = re.compile(r"[0-9a-f]{16,}")


#: Operations that make an object, or replace one.
WRITES = ("put_whole", "put_file", "copy", "create_once")


class Act(StrEnum):
    """What happens at the chosen call."""

    KILL_BEFORE = "kill before"
    KILL_AFTER = "kill after"
    #: The store answers "503", and nothing was done.
    FAIL = "fail"
    #: It is done, and the reply is an error.
    LOSE = "lose the reply"
    #: It is created, the driver of the store asks again, and hears that another was first.
    DENY = "deny"
    #: Half of the bytes are there under the name, and the process is killed.
    TEAR = "tear"
    #: A listing that does not know the newest object yet.
    HIDE_NEWEST = "hide the newest"
    #: A listing that knows nothing yet.
    HIDE_ALL = "hide all"
    #: The worker is lost, its driver lives: for an executor whose workers are no processes.
    BREAK_BEFORE = "break before"
    BREAK_AFTER = "break after"


class Victim(StrEnum):
    """Whom a kill hits, seen from the process that makes the call."""

    SELF = "self"
    PARENT = "parent"
    DRIVER = "driver"


class Role(StrEnum):
    """Who makes a call."""

    DRIVER = "driver"
    WORKER = "worker"


@dataclass(frozen=True)
class Strike:
    """One fault: at which call, and what happens there."""

    role: Role
    #: A method of ``Store``, or of a session.
    operation: str
    #: Regular expression for the whole plain name (see ``plain_name``).
    name: str
    #: Which of the calls that fit, counted from 1.
    occurrence: int
    act: Act
    victim: Victim = Victim.SELF

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Strike:
        """Read back what ``asdict`` made. Raises TypeError, ValueError or KeyError otherwise."""
        kinds = {
            "role": Role(document["role"]),
            "act": Act(document["act"]),
            "victim": Victim(document["victim"]),
        }
        values: dict[str, Any] = {**document, **kinds}
        return cls(**values)


@dataclass(frozen=True)
class Call:
    """One line of the journal: a call that was made, and what came of it."""

    role: str
    operation: str
    name: str
    #: ``done``, ``missing``, ``failed``, ``lost``, ``torn``, or ``not done``.
    end: str
    #: Of the content that was written or read whole; empty for other calls.
    sha256: str = ""
    #: What ``create_once`` answered; None for other calls.
    told: bool | None = None
    #: How many objects a listing gave; 0 for other calls.
    num_listed: int = 0

    @property
    def plain_name(self) -> str:
        """The name without what differs from run to run."""
        return plain_name(self.name)


def plain_name(name: str) -> str:
    """An object's name without digests and random parts: the same in every run of a job."""
    return _VARYING.sub("*", name)


@dataclass(frozen=True)
class Failpoint:
    """What ``RDU_BATCH_FAULT`` holds."""

    #: Local folder of the trial: holds the journal.
    folder: str
    #: Local folder of this run: holds its marks.
    marks: str
    #: None to keep the journal only.
    strike: Strike | None = None

    def to_json(self) -> str:
        """The text of the environment variable."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Failpoint:
        """Read the variable back.

        Raises:
            UsageError: it holds something else. Ends the job (exit 2).
        """
        try:
            document = json.loads(text)
            strike = Strike.from_json(document["strike"]) if document["strike"] else None
            return cls(document["folder"], document["marks"], strike)
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"{FAULT_VARIABLE} is set and is no failpoint ({error!r}). It makes runs fail on "
                "purpose, for `rdu-batch chaos`: unset it."
            ) from error

    def open(self) -> OpenFailpoint:
        """Make the folders and say that faults are armed."""
        Path(self.marks).mkdir(parents=True, exist_ok=True)
        if self.strike is not None:
            sys.stderr.write(
                f"rdu-batch: {FAULT_VARIABLE} is set: this process will {self.strike.act} at "
                f"{self.strike.operation} {self.strike.name}, number {self.strike.occurrence}\n"
            )
        return OpenFailpoint(self)


@cache
def open_failpoint(text: str) -> OpenFailpoint:
    """The failpoint of this process, opened once."""
    return Failpoint.from_json(text).open()


def read_journal(folder: str | Path) -> list[Call]:
    """All calls of a trial so far, in the order in which they ended."""
    path = Path(folder, JOURNAL)
    if not path.exists():
        return []
    return [Call(**json.loads(line)) for line in path.read_text().splitlines()]


class OpenFailpoint:
    """A failpoint in one process: counts calls, strikes, and keeps the journal."""

    def __init__(self, failpoint: Failpoint) -> None:
        self._strike = failpoint.strike
        self._folder = Path(failpoint.folder)
        self._marks = Path(failpoint.marks)
        self._journal = os.open(
            self._folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
        )
        self._num_opened = 0

    def next_role(self) -> Role:
        """The role of whoever opens the output now: the first of all to do so is the driver."""
        self._num_opened += 1
        if self._num_opened == 1 and self._mark(_DRIVER, str(os.getpid())):
            return Role.DRIVER
        return Role.WORKER

    def act_at(self, role: Role, operation: str, name: str) -> Act | None:
        """What is to happen at this call; None, but for the one that is chosen."""
        strike = self._strike
        if (
            strike is None
            or (role, operation) != (strike.role, strike.operation)
            or re.fullmatch(strike.name, plain_name(name)) is None
            or not self._is_its_turn(strike.occurrence)
        ):
            return None
        self._mark(STRUCK, f"{operation} {name}")
        return strike.act

    def note(self, call: Call) -> None:
        """Add a line to the journal; whole, whoever writes at the same time."""
        os.write(self._journal, json.dumps(asdict(call)).encode() + b"\n")

    def calls(self) -> list[Call]:
        """The journal so far."""
        return read_journal(self._folder)

    def die(self) -> NoReturn:
        """Kill the victim, and stand still until its end takes this process along."""
        victim = self._strike.victim if self._strike else Victim.SELF
        pid = os.getppid() if victim is Victim.PARENT else os.getpid()
        if victim is Victim.DRIVER:
            pid = int((self._marks / _DRIVER).read_text())
        os.kill(pid, signal.SIGKILL)
        while True:
            # Nothing of this process may happen after its victim's death.
            signal.pause()

    def _is_its_turn(self, wanted: int) -> bool:
        """Number this occurrence, over all processes of the run; True for the one wanted."""
        number = 1
        while not self._mark(f"seen-{number}"):
            number += 1
        return number == wanted

    def _mark(self, name: str, text: str = "") -> bool:
        """Create a mark; False if it is there."""
        try:
            with (self._marks / name).open("x") as mark:
                mark.write(text)
        except FileExistsError:
            return False
        return True


def strike_around(
    failpoint: OpenFailpoint,
    act: Act | None,
    call: Call,
    do: Callable[[], T],
    done: Callable[[T, str], Call],
) -> T:
    """Make a call with a fault before it, after it, or with none.

    Args:
        failpoint: keeps the journal, kills.
        act: the fault.
        call: who calls what.
        do: makes the call.
        done: turns its result into the line for the journal.

    Raises:
        StoreError: the fault, or what ``do`` raised.
        SessionBroken: the fault.
    """
    if act in (Act.KILL_BEFORE, Act.FAIL, Act.BREAK_BEFORE):
        failpoint.note(call)
        _strike(failpoint, act, call)
    try:
        result = do()
    except StoreError as error:
        end = "missing" if isinstance(error, ObjectMissing) else "failed"
        failpoint.note(Call(call.role, call.operation, call.name, end))
        if act in (Act.KILL_AFTER, Act.BREAK_AFTER):
            _strike(failpoint, act, call)
        raise
    end = "lost" if act in (Act.LOSE, Act.DENY) else "done"
    failpoint.note(done(result, end))
    if act in (Act.KILL_AFTER, Act.LOSE, Act.BREAK_AFTER):
        _strike(failpoint, act, call)
    return result


def _strike(failpoint: OpenFailpoint, act: Act, call: Call) -> None:
    what = f"{call.operation} {call.name}: a fault on purpose ({FAULT_VARIABLE})"
    if act in (Act.KILL_BEFORE, Act.KILL_AFTER):
        failpoint.die()
    if act in (Act.BREAK_BEFORE, Act.BREAK_AFTER):
        raise SessionBroken(f"the worker is lost at {what}")
    said = "503, the service is away" if act is Act.FAIL else "the connection was closed"
    raise StoreError(f"cannot {what}: {said}; run again later")
