"""Where a task's time went in its session: the four kinds of work, measured without a gap.

Promises: the kinds add up to the time between a clock's start and its last lap. Does not: know of
time outside a task (see ``worker_seconds.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class TimeSpent(NamedTuple):
    """Seconds of one worker, by what it did."""

    #: Reading, parsing and rendering rows, token ids of prompts, and writing outcomes to the spool.
    reading_s: float = 0.0
    #: From a prompt's token ids to its first token.
    prefill_s: float = 0.0
    #: All tokens after the first, choice and text included.
    decode_s: float = 0.0
    #: Making outcomes durable: segments, sealing, commit records, publishing.
    commit_s: float = 0.0

    @property
    def rows_s(self) -> float:
        """What the rows took; storing their outcomes not included."""
        return self.reading_s + self.prefill_s + self.decode_s

    @property
    def total_s(self) -> float:
        """All four."""
        return self.rows_s + self.commit_s

    def scaled(self, factor: float) -> TimeSpent:
        """The same shares of another total."""
        return TimeSpent(*(seconds * factor for seconds in self))


_READING, _PREFILL, _DECODE, _COMMIT = range(len(TimeSpent._fields))


class TaskClock:
    """Cuts the time of one task into laps, each of which counts as one kind of work."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Start."""
        self._now_s = now_s
        self._last_s = now_s()
        self._spent_s = [0.0] * len(TimeSpent._fields)

    def _lap(self, kind: int) -> None:
        now_s = self._now_s()
        self._spent_s[kind] += now_s - self._last_s
        self._last_s = now_s

    def has_read(self) -> None:
        """Everything since the last lap was reading."""
        self._lap(_READING)

    def has_prefilled(self) -> None:
        """Everything since the last lap was prefill."""
        self._lap(_PREFILL)

    def has_decoded(self) -> None:
        """Everything since the last lap was decode."""
        self._lap(_DECODE)

    def has_committed(self) -> None:
        """Everything since the last lap was commit."""
        self._lap(_COMMIT)

    @property
    def spent(self) -> TimeSpent:
        """All laps so far."""
        return TimeSpent(*self._spent_s)
