"""How much may fail before a job is given up; pure.

Three budgets, each per wanted worker: starts that fail in a row; actors or nodes lost without a
lease done between; sessions that die without a lease done between. What is given up for is always
said with the last cause.
"""

from __future__ import annotations

from dataclasses import dataclass

from rdu_batch.runner.executor import WorkerLost

#: Lost actors or nodes, per wanted worker, without a single lease done, before the job is given up.
LOSSES_PER_WORKER = 20
#: Starts that may fail in a row, per wanted worker, before the job is given up.
START_FAILURES_PER_WORKER = 3

#: What killed a first session may have been meant for another process; twice is no accident.
LEAST_START_FAILURES = 2


@dataclass
class FailureBudget:
    """Counts failures; each method that counts one gives back why to give up, or None."""

    attempts_per_row: int
    _was_ever_ready: bool = False
    _start_failures: int = 0
    _last_start_failure: str = ""
    _deaths: int = 0
    _losses: int = 0

    def note_ready(self) -> None:
        """A session is open."""
        self._was_ever_ready = True
        self._start_failures = 0

    def note_progress(self) -> None:
        """A task was done."""
        self._deaths = self._losses = 0

    def may_start(self, num_workers: int) -> bool:
        """Whether another start is worth trying."""
        return self._start_failures < START_FAILURES_PER_WORKER * num_workers

    def on_start_failed(self, event: WorkerLost, num_workers: int) -> str | None:
        """A worker was lost before its session was open."""
        self._start_failures += 1
        self._last_start_failure = event.cause
        # A lost actor or node says nothing about the next one; a session that fails to open does.
        own_failure = event.session_died and not self._was_ever_ready
        if own_failure and self._start_failures >= max(LEAST_START_FAILURES, num_workers):
            return self.no_session_starts()
        return self._on_loss(event, num_workers)

    def on_lost(self, event: WorkerLost, num_workers: int) -> str | None:
        """A worker was lost that had an open session."""
        self._deaths += event.session_died
        # Each worker may meet a row that kills it as often as a row is tried; beyond that it is
        # not the rows.
        if self._deaths > num_workers * (self.attempts_per_row + 1):
            return f"sessions keep dying and no lease ends. The last one: {event.cause}"
        return self._on_loss(event, num_workers)

    def no_session_starts(self) -> str:
        """Why to give up when nothing runs and nothing may be started."""
        return (
            f"no session starts ({self._start_failures} tries in a row). "
            f"The last one: {self._last_start_failure}"
        )

    def _on_loss(self, event: WorkerLost, num_workers: int) -> str | None:
        self._losses += 1
        if self._losses > LOSSES_PER_WORKER * num_workers:
            return f"workers keep getting lost and no lease ends. The last: {event.cause}"
        return None
