"""The heartbeat of an epoch: a counter in the store that grows for as long as its driver lives.

Clocks of two machines are never compared. Whoever wants to know whether a driver lives looks at the
counter again and again and judges by its movement, on a clock of its own (``judge``, pure).

``Heartbeat`` is the driver's side: a thread that looks whether a later epoch exists, then moves the
counter. A driver that was paused, or cut off from its store, for so long that another may have
taken over does not know whether it still owns its output; ``owns`` says so.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from types import TracebackType
from typing import Self

from rdu_batch.errors import ObjectMissing, OutputOwned, StoreError, UsageError
from rdu_batch.runner.epochs import Owner, read_object
from rdu_batch.runner.fencing import check_epoch
from rdu_batch.runner.run_layout import driver_heartbeat
from rdu_batch.storage.store import Store

#: How often a driver moves its counter; a few requests each time.
HEARTBEAT_S = 5.0
#: Sets another interval, in seconds. A shorter one takes a dead driver's output over sooner.
HEARTBEAT_VARIABLE = "RDU_BATCH_HEARTBEAT_S"
#: How many intervals a counter may stand still, and how long beside that: for a slow store.
PATIENCE_BEATS = 3
PATIENCE_SLACK_S = 3.0
#: How long the end of a run waits for a beat on its way.
JOIN_TIMEOUT_S = 0.5


class Verdict(StrEnum):
    """What a row of looks at a heartbeat tells."""

    MOVES = "moves"
    STANDS = "stands"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Look:
    """One look at a heartbeat: when, on the observer's own clock, and the counter (None: none)."""

    at_s: float
    count: int | None


def takeover_s(heartbeat_s: float) -> float:
    """How long a heartbeat of this interval must be seen to stand still before it is dead."""
    return PATIENCE_BEATS * heartbeat_s + PATIENCE_SLACK_S


def judge(looks: Sequence[Look], heartbeat_s: float) -> Verdict:
    """Judge a heartbeat by looks at it, earliest first.

    Time in which the observer itself did not look (it was paused, too) proves nothing: a gap
    between two looks counts for one interval at most.
    """
    if len({look.count for look in looks}) > 1:
        return Verdict.MOVES
    stood_s = sum(min(after.at_s - before.at_s, heartbeat_s) for before, after in pairwise(looks))
    return Verdict.STANDS if stood_s >= takeover_s(heartbeat_s) else Verdict.UNDECIDED


def heartbeat_s_of(environment: Mapping[str, str]) -> float:
    """The interval that the environment asks for, else ``HEARTBEAT_S``.

    Raises:
        UsageError: it asks for something that is no time.
    """
    text = environment.get(HEARTBEAT_VARIABLE)
    if text is None:
        return HEARTBEAT_S
    try:
        heartbeat_s = float(text)
    except ValueError:
        heartbeat_s = math.nan
    if not 0 < heartbeat_s < math.inf:
        raise UsageError(
            f"{HEARTBEAT_VARIABLE} is {text!r}; wanted seconds above 0, such as {HEARTBEAT_S:g}. "
            "Correct it, or unset it."
        )
    return heartbeat_s


def read_count(store: Store, epoch: int) -> int | None:
    """The counter of an epoch; None if it has none."""
    try:
        count = read_object(store.read(driver_heartbeat(epoch))).get("count")
    except ObjectMissing:
        return None
    return count if isinstance(count, int) else None


def clock_s() -> float:
    """Seconds on a clock that also runs while the machine sleeps, where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Heartbeat:
    """Moves the counter of one epoch from a thread, and knows whether the epoch still counts.

    Args:
        store: the output.
        owner: the epoch, with its interval.
        now_s: seconds, see ``clock_s``.
    """

    def __init__(self, store: Store, owner: Owner, *, now_s: Callable[[], float] = clock_s) -> None:
        self._store = store
        #: The epoch.
        self.owner = owner
        self._heartbeat_s = owner.heartbeat_s or HEARTBEAT_S
        self._now_s = now_s
        self._count = 0
        self._confirmed_s = now_s()
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Move the counter for the first time, before anything slow happens, and go on moving it.

        Raises:
            OutputOwned: a later epoch exists already.
            StoreError: the store failed.
        """
        self.turn()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End the thread; a beat that is on its way to a slow store is not waited for."""
        self._ended.set()
        self._thread.join(JOIN_TIMEOUT_S)

    @property
    def is_lost(self) -> bool:
        """True once the thread found that the epoch counts no more. No look at the store."""
        return self._failure is not None

    def owns(self) -> bool:
        """Whether the epoch still counts, from what the thread found last.

        Returns:
            False when it cannot be known: the last look is so old that another driver may have
            taken over since. Nothing may be handed out or reported until the thread looked again.

        Raises:
            OutputOwned: a later epoch exists. Ends the job (exit 14).
        """
        if self._failure is not None:
            raise self._failure
        return self._now_s() - self._confirmed_s <= takeover_s(self._heartbeat_s)

    def confirm(self) -> None:
        """Look at the store now: to be called before each step that changes what is reported.

        Raises:
            OutputOwned: a later epoch exists. Ends the job (exit 14).
            StoreError: the store failed.
        """
        check_epoch(self._store, self.owner.epoch, self.owner.token)

    def turn(self) -> None:
        """Look, then move the counter: who is fenced writes nothing any more."""
        started_s = self._now_s()
        self.confirm()
        self._count += 1
        document = {"version": 1, "epoch": self.owner.epoch, "count": self._count}
        content = json.dumps(document).encode() + b"\n"
        self._store.put_whole(driver_heartbeat(self.owner.epoch), content)
        self._confirmed_s = started_s

    def _run(self) -> None:
        wait_s = self._heartbeat_s
        while not self._ended.wait(wait_s):
            started_s = self._now_s()
            try:
                self.turn()
            except OutputOwned as error:
                self._failure = error
                return
            except StoreError:
                # The next turn tries again; until one succeeds, the age of the last one tells.
                pass
            except Exception as error:  # noqa: BLE001 - raised where somebody sees it, by owns()
                self._failure = error
                return
            # After a pause inside a turn the next one is due at once: much may have happened.
            wait_s = max(0.0, self._heartbeat_s - (self._now_s() - started_s))
