"""How the driver reaches workers: the small door that ``inline`` and ``ray`` stand behind.

An executor starts workers, gives each at most one task at a time, and reports what happened to
them as events. It never retries and never decides: that is the scheduler's part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rdu_batch.errors import RduBatchError
from rdu_batch.runner.leases import Answer, LeaseDone, Task


@dataclass(frozen=True)
class WorkerReady:
    """The worker's session is open; it can be given a task."""

    worker_id: int
    #: Seconds from the start of the worker to its open session.
    start_s: float


@dataclass(frozen=True)
class TaskDone:
    """The worker finished its task and is idle."""

    worker_id: int
    answer: Answer


@dataclass(frozen=True)
class WorkerLost:
    """The worker is gone, with the task it had; it is never used again."""

    worker_id: int
    #: What is known of the cause, for people.
    cause: str
    #: True if its own session died or exceeded the row limit; False for a lost actor or node.
    session_died: bool
    #: Ordinal of the row that was in progress, where known.
    row: int | None = None
    #: The session was killed because that row took longer than the row limit.
    row_timed_out: bool = False
    #: What of its lease is durable all the same; None if nothing is, or nothing is known.
    done: LeaseDone | None = None


@dataclass(frozen=True)
class WorkerLeaving:
    """The worker's node is going away: it may finish the task it has, and gets no other."""

    worker_id: int


@dataclass(frozen=True)
class RoomChanged:
    """Another number of workers is wanted, because the cluster grew or shrank."""

    num_workers: int


@dataclass(frozen=True)
class JobFailed:
    """A worker met an error that ends the whole job, such as a changed input."""

    worker_id: int
    error: RduBatchError


WorkerEvent = WorkerReady | TaskDone | WorkerLost | WorkerLeaving | RoomChanged | JobFailed


class Executor(Protocol):
    """Workers of one epoch of one job."""

    @property
    def num_slots(self) -> int:
        """How many workers there is room for now, for ``workers.count: auto``; at least 1."""

    def start_worker(self, worker_id: int) -> None:
        """Begin to start a worker; WorkerReady, WorkerLost or JobFailed follows."""

    def assign(self, worker_id: int, task: Task) -> None:
        """Give an idle worker a task; TaskDone, WorkerLost or JobFailed follows."""

    def next_events(self, timeout_s: float) -> list[WorkerEvent]:
        """Wait up to ``timeout_s`` for something to happen; empty if nothing did."""

    def dismiss(self, worker_id: int) -> None:
        """End an idle worker; no event follows."""

    def stop(self) -> None:
        """End all workers at once. Nothing they had in progress counts."""
