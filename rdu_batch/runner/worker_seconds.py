"""The account of all workers' time in one epoch of a job; pure, ``now_s`` is passed in.

A worker's time runs from the driver's wish for it to its end, or to the end of the epoch. Every
second of it is in exactly one class, so that the classes add up to the whole:

    session start   until its session was open; a cluster's wait for room included
    reading, prefill, decode, commit    what counted tasks spent (``time_spent.py``)
    waiting         idle, between tasks; messages on their way
    wasted          starts that failed, tasks that were lost or stopped on the way, late copies
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from rdu_batch.report.progress import WorkerNow
from rdu_batch.runner.time_spent import TimeSpent

#: What is left of a number of seconds for people and programs.
DIGITS = 3


@dataclass
class WorkerSeconds:
    """Seconds of all workers, by class."""

    session_start_s: float = 0.0
    reading_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    commit_s: float = 0.0
    waiting_s: float = 0.0
    wasted_s: float = 0.0

    def add(self, spent: TimeSpent) -> None:
        """Add what a task spent."""
        for name, seconds in spent._asdict().items():
            setattr(self, name, getattr(self, name) + seconds)

    def add_within(self, spent: TimeSpent, most_s: float) -> float:
        """Add a task's time, which cannot be longer than seen from here; what is left of that."""
        if spent.total_s > most_s:  # Clocks of two machines: the shares are right all the same.
            spent = spent.scaled(most_s / spent.total_s)
        self.add(spent)
        return most_s - spent.total_s

    def to_json(self) -> dict[str, float]:
        """Every class, and ``total_s``, which is their sum to the last digit."""
        classes = {name: round(seconds, DIGITS) for name, seconds in vars(self).items()}
        return {"total_s": round(sum(classes.values()), DIGITS), **classes}


@dataclass
class WorkerAccount:
    """One worker: what it did, and what became of its time."""

    worker_id: int
    rows: int = 0
    generated_tokens: int = 0
    seconds: WorkerSeconds = field(default_factory=WorkerSeconds)

    def to_json(self) -> dict[str, Any]:
        """Flat but for the seconds."""
        return {**vars(self), "seconds": self.seconds.to_json()}


@dataclass
class _Worker:
    account: WorkerAccount
    #: Since when it does what it does now.
    since_s: float
    is_ready: bool = False
    #: In a few words; None between tasks.
    task: str | None = None


class WorkerLedger:
    """Takes in what happens to each worker, in the order that it happens."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        #: Of every worker there ever was, what has ended.
        self.accounts: list[WorkerAccount] = []

    @property
    def seconds(self) -> WorkerSeconds:
        """Of all workers together, what has ended."""
        names = vars(WorkerSeconds())
        return WorkerSeconds(
            **{name: sum(getattr(one.seconds, name) for one in self.accounts) for name in names}
        )

    def now(self, now_s: float, most: int) -> list[WorkerNow]:
        """The first so many workers that live, in the order of their starts."""
        return [
            WorkerNow(
                worker_id,
                (worker.task or "idle") if worker.is_ready else "opens its session",
                now_s - worker.since_s,
                worker.account.rows,
                worker.account.generated_tokens,
            )
            for worker_id, worker in islice(self._workers.items(), most)
        ]

    def start(self, worker_id: int, now_s: float) -> None:
        """A worker is wanted."""
        account = WorkerAccount(worker_id)
        self.accounts.append(account)
        self._workers[worker_id] = _Worker(account, now_s)

    def gain(self, worker_id: int, *, rows: int, generated_tokens: int) -> None:
        """Rows of it count."""
        account = self._workers[worker_id].account
        account.rows += rows
        account.generated_tokens += generated_tokens

    def ready(self, worker_id: int, now_s: float) -> None:
        """Its session is open."""
        worker = self._workers.get(worker_id)
        if worker is not None and not worker.is_ready:
            worker.account.seconds.session_start_s += now_s - worker.since_s
            worker.since_s, worker.is_ready = now_s, True

    def assign(self, worker_id: int, now_s: float, task: str) -> None:
        """It got a task, told in a few words."""
        worker = self._workers[worker_id]
        worker.account.seconds.waiting_s += now_s - worker.since_s
        worker.since_s, worker.task = now_s, task

    def answer(self, worker_id: int, spent: TimeSpent, now_s: float, *, counts: bool) -> None:
        """Its task came back; ``counts`` is False where another worker's answer came first."""
        worker = self._workers[worker_id]
        seconds, task_s = worker.account.seconds, now_s - worker.since_s
        if counts:
            seconds.waiting_s += seconds.add_within(spent, task_s)
        else:
            seconds.wasted_s += task_s
        worker.since_s, worker.task = now_s, None

    def lose(self, worker_id: int, kept: TimeSpent, now_s: float) -> None:
        """It is gone; ``kept`` is what it spent on rows that are durable all the same."""
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return
        seconds, gone_s = worker.account.seconds, now_s - worker.since_s
        if worker.is_ready and worker.task is None:
            seconds.waiting_s += gone_s
        else:
            seconds.wasted_s += seconds.add_within(kept, gone_s)

    def dismiss(self, worker_id: int, now_s: float) -> None:
        """It is ended, because there is nothing for it to do."""
        self.lose(worker_id, TimeSpent(), now_s)

    def close(self, now_s: float) -> None:
        """The epoch ends: what is still under way is ended with it."""
        for worker_id, worker in list(self._workers.items()):
            if not worker.is_ready:  # It began, and was not needed any more.
                self.ready(worker_id, now_s)
            self.dismiss(worker_id, now_s)
