"""One worker in the driver's own process, without Ray: for debugging, tests and tiny jobs.

The session is not isolated here: what kills it kills the job (a rerun resumes), nothing watches a
row's time or the session's memory, and nothing is noted of attempts and deaths.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rdu_batch.errors import RduBatchError, SessionBroken
from rdu_batch.runner.executor import JobFailed, TaskDone, WorkerEvent, WorkerLost, WorkerReady
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.lease_run import LeaseRunner
from rdu_batch.runner.leases import Task


class InlineExecutor:
    """Runs each task inside ``next_events``; asks ``should_stop`` between rows."""

    num_slots = 1

    def __init__(self, context: JobContext, *, should_stop: Callable[[], bool]) -> None:
        self._context = context
        self._should_stop = should_stop
        self._starting: list[int] = []
        self._tasks: list[tuple[int, Task]] = []
        self._runner: LeaseRunner | None = None

    def start_worker(self, worker_id: int) -> None:
        """Queue the start of the one worker."""
        self._starting.append(worker_id)

    def assign(self, worker_id: int, task: Task) -> None:
        """Queue a task."""
        self._tasks.append((worker_id, task))

    def next_events(self, timeout_s: float) -> list[WorkerEvent]:
        """Do the next queued thing, however long it takes."""
        del timeout_s
        if self._starting:
            worker_id = self._starting.pop(0)
            return [_event_of(worker_id, lambda: self._open(worker_id))]
        if self._tasks:
            worker_id, task = self._tasks.pop(0)
            return [_event_of(worker_id, lambda: self._run(worker_id, task))]
        return []

    def dismiss(self, worker_id: int) -> None:
        """Close the session."""
        del worker_id
        self.stop()

    def stop(self) -> None:
        """Close the session."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _open(self, worker_id: int) -> WorkerEvent:
        started_s = time.monotonic()
        self.stop()
        self._runner = LeaseRunner(self._context)
        return WorkerReady(worker_id, time.monotonic() - started_s)

    def _run(self, worker_id: int, task: Task) -> WorkerEvent:
        if self._runner is None:
            raise ValueError(f"worker {worker_id} was given a task before it was ready")
        return TaskDone(worker_id, self._runner.run(task, should_stop=self._should_stop))


def _event_of(worker_id: int, work: Callable[[], WorkerEvent]) -> WorkerEvent:
    try:
        return work()
    except SessionBroken as error:
        return WorkerLost(worker_id, str(error), True, error.row, error.timed_out)
    except RduBatchError as error:
        return JobFailed(worker_id, error)
