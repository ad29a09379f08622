"""A cluster in virtual time: the real scheduler, thousands of workers, no session and no store.

Workers differ in speed, leases take what their rows take, nodes are preempted and come back. Only
the scheduler's own time is real.
"""

from __future__ import annotations

import heapq
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rdu_batch.job.plan import Plan
from rdu_batch.runner.actions import Action, Assign, Finish, GiveUp, StartWorker
from rdu_batch.runner.executor import TaskDone, WorkerEvent, WorkerLost, WorkerReady
from rdu_batch.runner.leases import Lease, LeaseDone, SealDone, Task
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.scheduler import Scheduler
from rdu_batch.runner.time_spent import TimeSpent

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that a lease costs beside its rows (messages, its segment), and a sealing in all.
LEASE_EXTRA_S, SEAL_S = 0.2, 2.0
TICK_S = 1.0


@dataclass
class VirtualCluster:
    """Runs one job and says how long it took.

    Args:
        num_rows: of the job.
        num_workers: at once.
        rows_per_shard: of the job.
        row_s: of a worker of speed 1.
        speed_of: a worker's speed by its number; a replacement has a number of its own.
        lifetime_s: mean time to a worker's preemption; None for never.
        start_s: until a worker is ready.
    """

    num_rows: int
    num_workers: int
    rows_per_shard: int = 10_000
    row_s: float = 1.0
    speed_of: Callable[[int], float] = lambda _worker_id: 1.0
    lifetime_s: float | None = None
    start_s: float = 60.0
    seed: int = 1
    #: Of the worker's whole life, by its number; what it worked counts as capacity.
    ready_at_s: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing has happened yet."""
        plan = Plan(
            1, "virtual", "", {}, 1, self.num_rows, self.num_rows, self.rows_per_shard, (), ()
        )
        self.scheduler = Scheduler(plan, self.num_workers, attempts_per_row=3)
        self.random = random.Random(self.seed)
        self.now_s = 0.0
        self.busy_s = 0.0
        self.num_leases = self.num_seals = self.num_events = 0
        self._queue: list[tuple[float, int, WorkerEvent | None]] = []
        self._tasks: dict[int, Task] = {}
        self._sequence = 0
        #: Speed-weighted seconds of open sessions.
        self.capacity_s = 0.0

    def run(self) -> None:
        """Until every shard is committed."""
        self._at(TICK_S, None)
        if self._carry_out(self._timed(self.scheduler.begin)):
            return
        while True:
            self.now_s, _, event = heapq.heappop(self._queue)
            if event is None:
                self._carry_out(self._timed(lambda: self.scheduler.tick(self.now_s)))
                self._at(TICK_S, None)
            elif self._is_real(event):
                self.num_events += 1
                actions = self._timed(lambda event=event: self.scheduler.on(event, self.now_s))
                if self._carry_out(actions):
                    break
        for worker_id in list(self.ready_at_s):
            self._end_of(worker_id)

    @property
    def makespan_over_ideal(self) -> float:
        """The job's time over what its rows would take at the capacity that there was."""
        return self.capacity_s / (self.num_rows * self.row_s)

    def _timed(self, decide: Callable[[], list[Action]]) -> list[Action]:
        started_s = time.perf_counter()
        actions = decide()
        self.busy_s += time.perf_counter() - started_s
        return actions

    def _at(self, after_s: float, event: WorkerEvent | None) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now_s + after_s, self._sequence, event))

    def _is_real(self, event: WorkerEvent) -> bool:
        """Whether the worker of an event still lives; keeps the books of those that do not."""
        if isinstance(event, WorkerReady):
            self.ready_at_s[event.worker_id] = self.now_s
            if self.lifetime_s is not None:
                lost = WorkerLost(event.worker_id, "preempted", session_died=False)
                self._at(self.random.expovariate(1 / self.lifetime_s), lost)
            return True
        if event.worker_id not in self.ready_at_s:
            return False
        if isinstance(event, WorkerLost):
            self._end_of(event.worker_id)
        return True

    def _end_of(self, worker_id: int) -> None:
        lived_s = self.now_s - self.ready_at_s.pop(worker_id)
        self.capacity_s += lived_s * self.speed_of(worker_id)

    def _carry_out(self, actions: list[Action]) -> bool:
        for action in actions:
            if isinstance(action, StartWorker):
                self._at(self.start_s, WorkerReady(action.worker_id, self.start_s))
            elif isinstance(action, Assign):
                self._work(action.worker_id, action.task)
            elif isinstance(action, Finish):
                return True
            elif isinstance(action, GiveUp):
                raise RuntimeError(f"the scheduler gave up: {action.reason}")  # noqa: TRY004
        return False

    def _work(self, worker_id: int, task: Task) -> None:
        if not isinstance(task, Lease):
            self.num_seals += 1
            self._at(SEAL_S, TaskDone(worker_id, SealDone(task.shard, Totals())))
            return
        self.num_leases += 1
        # The sum of n rows that each vary by a half varies by a half over the root of n.
        noise = self.random.gauss(1.0, 0.5 / task.num_rows**0.5)
        rows_s = task.num_rows * self.row_s * max(noise, 0.1) / self.speed_of(worker_id)
        totals = Totals(rows=task.num_rows, predictions=task.num_rows)
        span = (task.first_row, task.end_row)
        spent = TimeSpent(decode_s=rows_s)
        done = LeaseDone(task.lease_id, task.shard, *span, task.covers_shard, totals, spent)
        self._at(rows_s + LEASE_EXTRA_S, TaskDone(worker_id, done))
