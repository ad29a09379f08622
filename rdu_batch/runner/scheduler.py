"""Who runs which rows next: events in, actions out.

Pure: no clock, no Ray, no I/O; ``now_s`` is passed in. State is O(workers + shards in progress)
plus one byte a shard; rows are only ever ranges, and an event costs the same however many.

Promises, held by a state machine test over arbitrary orders of events:
- every row is, at any time, in exactly one of: pending, in one task that is out, durable;
- a task is out at two workers at most: a second one gets a late task too, if it has nothing else to
  do, and the first whole answer counts (``tasks_out.py``); a suspect row is never out twice;
- a shard is sealed only when all of its rows are durable;
- a worker has at most one task; a lost worker's task goes to another; a worker whose node goes away
  ends the task it has and gets no other, and nothing is held against its rows;
- the scheduler ends: with Finish when every shard is committed, else with GiveUp.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rdu_batch.job.plan import Plan
from rdu_batch.runner.actions import Action, Assign, Dismiss, Finish, GiveUp, StartWorker
from rdu_batch.runner.executor import (
    RoomChanged,
    TaskDone,
    WorkerEvent,
    WorkerLeaving,
    WorkerLost,
    WorkerReady,
)
from rdu_batch.runner.failure_budget import FailureBudget
from rdu_batch.runner.leases import Lease, LeaseDone, SealDone, SealTask
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.pace import Pace
from rdu_batch.runner.shard_progress import RowRange, what_is_left
from rdu_batch.runner.shard_table import ShardTable
from rdu_batch.runner.tasks_out import TaskOut, worth_a_copy

#: After this many rows a job is stopped if more than half of them are dead letters; not a retry,
#: whose rows all were.
EARLY_STOP_ROWS = 1000
#: How often it is looked for late tasks.
LOOK_INTERVAL_S = 1.0


@dataclass
class Scheduler:
    """Decides for one epoch of a job; feed it every event, carry out every action in order.

    Args:
        plan: the job's plan.
        num_workers: how many workers to keep.
        attempts_per_row: strikes after which a row becomes a dead letter.
        committed: shards that need nothing more.
        begun: pending rows of shards that are not wholly pending, or have suspects.
    """

    plan: Plan
    num_workers: int
    attempts_per_row: int
    committed: Iterable[int] = ()
    begun: Mapping[int, list[RowRange]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take stock of what earlier epochs left."""
        self._shards = ShardTable(self.plan, self.committed, self.begun)
        self._budget = FailureBudget(self.attempts_per_row)
        self._pace = Pace()
        self._idle: deque[int] = deque()
        self._starting: set[int] = set()
        #: Busy workers whose node goes away.
        self._leaving: set[int] = set()
        self._busy: dict[int, TaskOut] = {}
        self._next_worker_id = 0
        self._next_lease_id = 0
        self._last_look_s = -LOOK_INTERVAL_S
        #: What this epoch's leases produced; a shard's totals come from its commit record.
        self.leased_totals = Totals()
        self.num_workers_lost = 0
        #: Late tasks that were given to a second worker.
        self.num_copies = 0
        #: Whether the last answer counts, or what a lost worker left of one: not where another copy
        #: of the task counts instead.
        self.last_answer_counts = True

    @property
    def num_workers_alive(self) -> int:
        """Workers with an open session, but for those whose node goes away."""
        return len(self._idle) + len(self._busy) - len(self._leaving)

    @property
    def num_shards_committed(self) -> int:
        """Shards that have a commit record."""
        return self.plan.num_shards - self._shards.num_uncommitted

    def begin(self) -> list[Action]:
        """The first actions: start workers, or finish at once if nothing is left."""
        if not self._shards.num_uncommitted:
            return [Finish()]
        self.num_workers = self._useful(self.num_workers)
        return self._replacements()

    def on(self, event: WorkerEvent, now_s: float) -> list[Action]:
        """Take in one event and say what to do about it."""
        dismissed: list[Action] = []
        if isinstance(event, WorkerReady):
            self._on_ready(event.worker_id)
        elif isinstance(event, TaskDone):
            dismissed = self._on_done(event, now_s)
        elif isinstance(event, WorkerLeaving):
            dismissed = self._on_leaving(event.worker_id)
        elif isinstance(event, RoomChanged):
            self.num_workers = self._useful(event.num_workers)
        elif isinstance(event, WorkerLost):
            why = self._on_lost(event)
            if why is not None:
                return [GiveUp(why)]
        return [*dismissed, *self._next_actions(now_s)]

    def tick(self, now_s: float) -> list[Action]:
        """Give late tasks to idle workers too; to be called now and then, whatever happens."""
        if not self._idle or now_s - self._last_look_s < LOOK_INTERVAL_S:
            return []
        self._last_look_s = now_s
        late = worth_a_copy(self._busy.values(), self._pace, self._idle[0], now_s, len(self._idle))
        self.num_copies += len(late)
        return [self._assign(out, now_s) for out in late]

    # -- what goes out

    def _next_actions(self, now_s: float) -> list[Action]:
        if not self._shards.num_uncommitted:
            return [Finish()]
        totals = self.leased_totals
        is_mostly_dead = totals.rows >= EARLY_STOP_ROWS and totals.dead * 2 > totals.rows
        if is_mostly_dead and self.plan.parent is None:
            return [GiveUp(_mostly_dead(totals))]
        actions = self._replacements()
        if not (actions or self._starting or self._idle or self._busy):
            return [GiveUp(self._budget.no_session_starts())]
        while self._idle and (out := self._take_task(self._idle[0])) is not None:
            actions.append(self._assign(out, now_s))
        return actions

    def _useful(self, num_workers: int) -> int:
        # More workers than rows would only open sessions; one is needed to seal empty shards.
        return min(num_workers, max(1, self._shards.num_pending + len(self._busy)))

    def _replacements(self) -> list[Action]:
        """Start workers for lost ones, unless starts keep failing or there is nothing for them."""
        if not self._budget.may_start(self.num_workers):
            return []
        work = self._shards.num_pending + self._shards.num_to_seal
        num_staying = len(self._busy) - len(self._leaving)
        wanted = min(self.num_workers, num_staying + max(work, not self._busy))
        num_missing = wanted - self.num_workers_alive - len(self._starting)
        return [self._start_worker() for _ in range(num_missing)]

    def _start_worker(self) -> StartWorker:
        worker_id = self._next_worker_id
        self._next_worker_id += 1
        self._starting.add(worker_id)
        return StartWorker(worker_id)

    def _assign(self, out: TaskOut, now_s: float) -> Assign:
        """Give a task to the first idle worker."""
        worker_id = self._idle.popleft()
        if isinstance(out.task, Lease):
            out.task = replace(out.task, lease_id=self._next_lease_id)
            self._next_lease_id += 1
        out.started_s[worker_id] = now_s
        self._busy[worker_id] = out
        return Assign(worker_id, out.task)

    def _take_task(self, worker_id: int) -> TaskOut | None:
        """The next task for an idle worker: seal what is done, go on with what is begun."""
        to_seal = self._shards.take_seal()
        if to_seal is not None:
            return TaskOut(SealTask(to_seal), None)
        most = self._pace.lease_rows(worker_id, self._shards.num_pending, self.num_workers)
        taken = self._shards.take_rows(most)
        if taken is None:
            return None
        index, rows = taken
        whole = self.plan.shard(index)
        lease = Lease(
            lease_id=-1,  # Each copy gets its own.
            shard=index,
            first_row=rows.first_row,
            end_row=rows.end_row,
            covers_shard=(rows.first_row, rows.end_row) == (whole.first_row, whole.end_row),
            dead_reason=rows.strike_reason if rows.strikes >= self.attempts_per_row else None,
            is_suspect=rows.is_suspect,
        )
        return TaskOut(lease, rows)

    # -- what comes back

    def _on_ready(self, worker_id: int) -> None:
        if worker_id in self._starting:
            self._starting.discard(worker_id)
            self._idle.append(worker_id)
            self._budget.note_ready()

    def _on_done(self, event: TaskDone, now_s: float) -> list[Action]:
        self._budget.note_progress()
        worker_id, answer = event.worker_id, event.answer
        out = self._busy.pop(worker_id)
        started_s = out.started_s.pop(worker_id)
        if isinstance(answer, SealDone):
            self._pace.note_seal(now_s - started_s)
            self._on_sealed(out, answer)
        else:
            self._pace.note_lease(worker_id, answer.end_row - answer.first_row, answer.spent.rows_s)
            self._on_leased(out, answer)
        if worker_id in self._leaving:
            return [self._dismiss(worker_id)]
        self._idle.append(worker_id)
        return []

    def _on_leased(self, out: TaskOut, done: LeaseDone, lost: WorkerLost | None = None) -> None:
        rows = out.rows
        self.last_answer_counts = False
        if out.is_settled or rows is None:
            return
        done = out.longest(done)
        if out.started_s and done.end_row < rows.end_row:
            return  # The other copy goes on; a row that kills its session kills that one too.
        out.is_settled = self.last_answer_counts = True
        self.leased_totals.add(done.totals)
        if done.is_committed:
            self._shards.commit(done.shard)
        else:
            self._shards.return_rows(done.shard, what_is_left(rows, done.end_row, lost))

    def _on_sealed(self, out: TaskOut, done: SealDone) -> None:
        self.last_answer_counts = not (out.is_settled or (done.missing and out.started_s))
        if not self.last_answer_counts:
            return
        out.is_settled = True
        if done.missing:
            missing = [RowRange(first, end) for first, end in done.missing]
            self._shards.return_seal(done.shard, missing)
        else:
            self._shards.commit(done.shard)

    def _on_leaving(self, worker_id: int) -> list[Action]:
        if worker_id in self._busy:
            self._leaving.add(worker_id)
            return []
        if worker_id in self._idle:
            self._idle.remove(worker_id)
        elif worker_id in self._starting:
            self._starting.discard(worker_id)
        else:
            return []
        return [self._dismiss(worker_id)]

    def _dismiss(self, worker_id: int) -> Dismiss:
        self._leaving.discard(worker_id)
        self._pace.forget(worker_id)
        return Dismiss(worker_id)

    def _on_lost(self, event: WorkerLost) -> str | None:
        """Gives back why to give up, if that is so."""
        worker_id = event.worker_id
        self.num_workers_lost += 1
        self._pace.forget(worker_id)
        if worker_id in self._starting:
            self._starting.discard(worker_id)
            return self._budget.on_start_failed(event, self.num_workers)
        if worker_id in self._idle:
            self._idle.remove(worker_id)
        else:
            self._take_back(event)
        if worker_id in self._leaving:
            self._leaving.discard(worker_id)
            return None
        return self._budget.on_lost(event, self.num_workers)

    def _take_back(self, event: WorkerLost) -> None:
        out = self._busy.pop(event.worker_id)
        del out.started_s[event.worker_id]
        if out.rows is not None:
            nothing = LeaseDone(-1, out.task.shard, out.rows.first_row, out.rows.first_row)
            self._on_leased(out, event.done or nothing, event)
        elif not (out.is_settled or out.started_s):
            self._shards.return_seal(out.task.shard)


def _mostly_dead(totals: Totals) -> str:
    reasons = ", ".join(f"{number} {reason}" for reason, number in totals.dead_reasons.items())
    return (
        f"{totals.dead} of the first {totals.rows} rows are dead letters ({reasons}). "
        "Look at the job's prompt block and at its input; finished rows are kept."
    )
