"""What the scheduler tells the driver to do; values only."""

from __future__ import annotations

from dataclasses import dataclass

from rdu_batch.runner.leases import Task


@dataclass(frozen=True)
class StartWorker:
    """Start a new worker under this id."""

    worker_id: int


@dataclass(frozen=True)
class Assign:
    """Give an idle worker a task."""

    worker_id: int
    task: Task


@dataclass(frozen=True)
class Dismiss:
    """End an idle worker."""

    worker_id: int


@dataclass(frozen=True)
class Finish:
    """Every shard is committed."""


@dataclass(frozen=True)
class GiveUp:
    """The job cannot or should not go on; ``reason`` is for people."""

    reason: str


Action = StartWorker | Assign | Dismiss | Finish | GiveUp
