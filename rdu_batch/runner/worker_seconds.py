"""The account of all workers' time in one epoch of a job; pure, ``now_s`` is passed in.

A worker's time runs from the driver's wish for it to its end, or to the end of the epoch. Every
second of it is in exactly one class, so that the classes add up to the whole:

    session start   until its session was open; a cluster's wait for room included
    reading, prefill, decode, commit    what counted tasks spent (``time_spent.py``)
    waiting         idle, between tasks; messages on their way
    wasted          starts that failed, tasks that were lost or stopped on the way, late copies
"""

from __future__ import annotations

from dataclasses import dataclass

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

    def to_json(self) -> dict[str, float]:
        """Every class, and ``total_s``, which is their sum to the last digit."""
        classes = {name: round(seconds, DIGITS) for name, seconds in vars(self).items()}
        return {"total_s": round(sum(classes.values()), DIGITS), **classes}


@dataclass
class _Worker:
    #: Since when it does what it does now.
    since_s: float
    is_ready: bool = False
    has_task: bool = False


class WorkerLedger:
    """Takes in what happens to each worker, in the order that it happens."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        #: Of everything that has ended.
        self.seconds = WorkerSeconds()

    def start(self, worker_id: int, now_s: float) -> None:
        """A worker is wanted."""
        self._workers[worker_id] = _Worker(now_s)

    def ready(self, worker_id: int, now_s: float) -> None:
        """Its session is open."""
        worker = self._workers.get(worker_id)
        if worker is not None and not worker.is_ready:
            self.seconds.session_start_s += now_s - worker.since_s
            worker.since_s, worker.is_ready = now_s, True

    def assign(self, worker_id: int, now_s: float) -> None:
        """It got a task."""
        worker = self._workers[worker_id]
        self.seconds.waiting_s += now_s - worker.since_s
        worker.since_s, worker.has_task = now_s, True

    def answer(self, worker_id: int, spent: TimeSpent, now_s: float, *, counts: bool) -> None:
        """Its task came back; ``counts`` is False where another worker's answer came first."""
        worker = self._workers[worker_id]
        task_s = now_s - worker.since_s
        if counts:
            self.seconds.waiting_s += self._add(spent, task_s)
        else:
            self.seconds.wasted_s += task_s
        worker.since_s, worker.has_task = now_s, False

    def lose(self, worker_id: int, kept: TimeSpent, now_s: float) -> None:
        """It is gone; ``kept`` is what it spent on rows that are durable all the same."""
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return
        gone_s = now_s - worker.since_s
        if worker.is_ready and not worker.has_task:
            self.seconds.waiting_s += gone_s
        else:
            self.seconds.wasted_s += self._add(kept, gone_s)

    def dismiss(self, worker_id: int, now_s: float) -> None:
        """It is ended, because there is nothing for it to do."""
        self.lose(worker_id, TimeSpent(), now_s)

    def close(self, now_s: float) -> None:
        """The epoch ends: what is still under way is ended with it."""
        for worker_id, worker in list(self._workers.items()):
            if not worker.is_ready:  # It began, and was not needed any more.
                self.ready(worker_id, now_s)
            self.dismiss(worker_id, now_s)

    def _add(self, spent: TimeSpent, most_s: float) -> float:
        """Add a task's time, which cannot be longer than seen from here; what is left of that."""
        if spent.total_s > most_s:  # Clocks of two machines: the shares are right all the same.
            spent = spent.scaled(most_s / spent.total_s)
        self.seconds.add(spent)
        return most_s - spent.total_s
