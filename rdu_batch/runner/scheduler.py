"""Who runs which rows next: events in, actions out.

Pure: no clock, no Ray, no I/O. State is O(shards in progress) plus one byte a shard; rows are
only ever ranges.

Promises, held by a state machine test over arbitrary orders of events:
- every row is, at any time, in exactly one of: pending, in one lease, durable;
- a shard is sealed only when all of its rows are durable, and by one worker at a time;
- a worker has at most one task; a lost worker's task goes to another;
- the scheduler ends: with Finish when every shard is committed, else with GiveUp.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rdu_batch.job.plan import Plan
from rdu_batch.runner.actions import Action, Assign, Finish, GiveUp, StartWorker
from rdu_batch.runner.executor import TaskDone, WorkerEvent, WorkerLost, WorkerReady
from rdu_batch.runner.leases import Lease, LeaseDone, SealDone, SealTask, Task
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.shard_progress import RowRange, ShardProgress, after_death

#: A lease aims at this much work: long enough to make commits cheap, short enough to lose little.
LEASE_TARGET_S = 10.0
#: Toward the end a lease is at most this part of what one worker's fair share would be.
TAIL_SHARE = 0.5
#: After this many rows a job is stopped if more than half of them are dead letters.
EARLY_STOP_ROWS = 1000
#: A lease has at most this many times the rows of the largest one that came back: one quick row (a
#: dead letter, say) must not make a lease of a whole shard.
LEASE_GROWTH = 4
#: Lost actors or nodes, per wanted worker, without a single lease done, before the job is given up.
LOSSES_PER_WORKER = 20
#: Starts that may fail in a row, per wanted worker, before the job is given up.
START_FAILURES_PER_WORKER = 3


@dataclass
class Scheduler:
    """Decides for one epoch of a job; feed it every event, carry out every action in order.

    Args:
        plan: the job's plan.
        num_workers: how many workers to keep.
        attempts_per_row: strikes after which a row becomes a dead letter.
        committed: shards that need nothing more.
        begun: missing row ranges of shards that already have segments.
    """

    plan: Plan
    num_workers: int
    attempts_per_row: int
    committed: Iterable[int] = ()
    begun: Mapping[int, list[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take stock of what earlier epochs left."""
        self._is_committed = bytearray(self.plan.num_shards)
        for shard in self.committed:
            self._is_committed[shard] = 1
        self._num_uncommitted = self.plan.num_shards - sum(self._is_committed)
        self._open: dict[int, ShardProgress] = {
            shard: ShardProgress([RowRange(first, end) for first, end in ranges])
            for shard, ranges in sorted(self.begun.items())
            if not self._is_committed[shard]
        }
        self._next_shard = 0
        self._idle: list[int] = []
        self._starting: set[int] = set()
        self._busy: dict[int, tuple[Task, RowRange | None]] = {}
        self._next_worker_id = 0
        self._next_lease_id = 0
        self._was_ever_ready = False
        self._start_failures = 0
        self._last_start_failure = ""
        self._deaths_without_progress = 0
        self._losses_without_progress = 0
        self._row_s: float | None = None
        self._largest_lease = 0
        self._num_pending = self._count_pending()
        #: What this epoch's leases produced; a shard's totals come from its commit record.
        self.leased_totals = Totals()
        self.num_workers_lost = 0

    @property
    def num_workers_alive(self) -> int:
        """Workers with an open session."""
        return len(self._idle) + len(self._busy)

    @property
    def num_shards_committed(self) -> int:
        """Shards that have a commit record."""
        return self.plan.num_shards - self._num_uncommitted

    def begin(self) -> list[Action]:
        """The first actions: start workers, or finish at once if nothing is left."""
        if not self._num_uncommitted:
            return [Finish()]
        # More workers than rows would only open sessions; one is needed to seal empty shards.
        self.num_workers = min(self.num_workers, max(1, self._num_pending))
        return self._replacements()

    def on(self, event: WorkerEvent) -> list[Action]:
        """Take in one event and say what to do about it."""
        if isinstance(event, WorkerReady):
            self._starting.discard(event.worker_id)
            self._idle.append(event.worker_id)
            self._was_ever_ready = True
            self._start_failures = 0
        elif isinstance(event, TaskDone):
            self._busy_to_idle(event)
        elif isinstance(event, WorkerLost):
            gave_up = self._on_lost(event)
            if gave_up is not None:
                return [gave_up]
        return self._next_actions()

    def _next_actions(self) -> list[Action]:
        if not self._num_uncommitted:
            return [Finish()]
        totals = self.leased_totals
        if totals.rows >= EARLY_STOP_ROWS and totals.dead * 2 > totals.rows:
            return [GiveUp(_mostly_dead(totals))]
        actions = self._replacements()
        if not (actions or self._starting or self.num_workers_alive):
            return [self._no_session_starts()]
        while self._idle and (taken := self._take_task()) is not None:
            worker_id = self._idle.pop(0)
            self._busy[worker_id] = taken
            actions.append(Assign(worker_id, taken[0]))
        return actions

    def _replacements(self) -> list[Action]:
        """Start workers for lost ones, unless starts keep failing or there is nothing for them."""
        if self._start_failures >= START_FAILURES_PER_WORKER * self.num_workers:
            return []
        work = self._num_pending + sum(shard.is_ready_to_seal for shard in self._open.values())
        wanted = min(self.num_workers, len(self._busy) + max(work, not self._busy))
        num_missing = wanted - self.num_workers_alive - len(self._starting)
        return [self._start_worker() for _ in range(num_missing)]

    def _start_worker(self) -> StartWorker:
        worker_id = self._next_worker_id
        self._next_worker_id += 1
        self._starting.add(worker_id)
        return StartWorker(worker_id)

    # -- what comes back

    def _busy_to_idle(self, event: TaskDone) -> None:
        self._deaths_without_progress = self._losses_without_progress = 0
        task, rows = self._busy.pop(event.worker_id)
        self._idle.append(event.worker_id)
        answer = event.answer
        if isinstance(answer, SealDone):
            self._on_sealed(answer)
        elif isinstance(task, Lease) and rows is not None:
            self._on_leased(task, rows, answer)

    def _on_leased(self, lease: Lease, rows: RowRange, done: LeaseDone) -> None:
        self.leased_totals.add(done.totals)
        num_rows = done.end_row - done.first_row
        if num_rows:
            row_s = done.rows_s / num_rows
            self._row_s = row_s if self._row_s is None else (self._row_s + row_s) / 2
            self._largest_lease = max(self._largest_lease, num_rows)
        shard = self._open[lease.shard]
        shard.num_leased -= 1
        if done.is_committed:
            self._commit(lease.shard)
        elif done.end_row < lease.end_row:
            self._give_back(shard, [replace(rows, first_row=done.end_row)])

    def _on_sealed(self, done: SealDone) -> None:
        shard = self._open[done.shard]
        shard.is_sealing = False
        if done.missing:
            self._give_back(shard, [RowRange(first, end) for first, end in done.missing])
        else:
            self._commit(done.shard)

    def _commit(self, shard: int) -> None:
        del self._open[shard]
        self._is_committed[shard] = 1
        self._num_uncommitted -= 1

    def _on_lost(self, event: WorkerLost) -> GiveUp | None:
        self.num_workers_lost += 1
        self._losses_without_progress += 1
        if self._losses_without_progress > LOSSES_PER_WORKER * self.num_workers:
            return GiveUp(f"workers keep getting lost and no lease ends. The last: {event.cause}")
        if event.worker_id in self._starting:
            self._starting.discard(event.worker_id)
            return self._on_start_failed(event)
        if event.worker_id in self._idle:
            self._idle.remove(event.worker_id)
        else:
            self._take_back(event)
        self._deaths_without_progress += event.session_died
        # Each worker may meet a row that kills it as often as a row is tried; beyond that it is
        # not the rows.
        if self._deaths_without_progress > self.num_workers * (self.attempts_per_row + 1):
            return GiveUp(f"sessions keep dying and no lease ends. The last one: {event.cause}")
        return None

    def _on_start_failed(self, event: WorkerLost) -> GiveUp | None:
        self._start_failures += 1
        self._last_start_failure = event.cause
        # A lost actor or node says nothing about the next one; a session that fails to open does.
        own_failure = event.session_died and not self._was_ever_ready
        if own_failure and self._start_failures >= self.num_workers:
            return self._no_session_starts()
        return None

    def _no_session_starts(self) -> GiveUp:
        tries, cause = self._start_failures, self._last_start_failure
        return GiveUp(f"no session starts ({tries} tries in a row). The last one: {cause}")

    def _take_back(self, event: WorkerLost) -> None:
        task, rows = self._busy.pop(event.worker_id)
        shard = self._open[task.shard]
        if isinstance(task, SealTask) or rows is None:
            shard.is_sealing = False
            return
        shard.num_leased -= 1
        self._give_back(shard, after_death(rows, event))

    # -- what goes out

    def _count_pending(self) -> int:
        rows = sum(r.end_row - r.first_row for s in self._open.values() for r in s.pending)
        for index, is_committed in enumerate(self._is_committed):
            if not is_committed and index not in self._open:
                shard = self.plan.shard(index)
                rows += shard.end_row - shard.first_row
        return rows

    def _give_back(self, shard: ShardProgress, ranges: list[RowRange]) -> None:
        shard.pending = sorted([*shard.pending, *ranges], key=lambda rows: rows.first_row)
        self._num_pending += sum(rows.end_row - rows.first_row for rows in ranges)

    def _take_task(self) -> tuple[Task, RowRange | None] | None:
        """The next task for an idle worker: seal what is done, go on with what is begun."""
        for index, shard in self._open.items():
            if shard.is_ready_to_seal:
                shard.is_sealing = True
                return SealTask(index), None
        for index, shard in self._open.items():
            if shard.pending:
                return self._lease(index, shard)
        while self._next_shard < self.plan.num_shards:
            index = self._next_shard
            self._next_shard += 1
            if not self._is_committed[index] and index not in self._open:
                whole = self.plan.shard(index)
                begun = ShardProgress([RowRange(whole.first_row, whole.end_row)])
                self._open[index] = begun
                return self._lease(index, begun)
        return None

    def _lease(self, index: int, shard: ShardProgress) -> tuple[Task, RowRange]:
        rows = shard.pending.pop(0)
        num_rows = min(rows.end_row - rows.first_row, self._lease_rows())
        taken = replace(rows, end_row=rows.first_row + num_rows)
        if taken.end_row < rows.end_row:
            shard.pending.insert(0, replace(rows, first_row=taken.end_row))
        shard.num_leased += 1
        self._num_pending -= num_rows
        whole = self.plan.shard(index)
        lease = Lease(
            lease_id=self._next_lease_id,
            shard=index,
            first_row=taken.first_row,
            end_row=taken.end_row,
            covers_shard=(taken.first_row, taken.end_row) == (whole.first_row, whole.end_row),
            dead_reason=taken.strike_reason if taken.strikes >= self.attempts_per_row else None,
        )
        self._next_lease_id += 1
        return lease, taken

    def _lease_rows(self) -> int:
        """Rows for about ``LEASE_TARGET_S`` of work, fewer toward the end, 1 to begin with."""
        if self._row_s is None:
            return 1
        target = LEASE_TARGET_S / self._row_s if self._row_s > 0 else math.inf
        tail = math.ceil(TAIL_SHARE * self._num_pending / self.num_workers)
        return max(1, int(min(target, tail, LEASE_GROWTH * self._largest_lease)))


def _mostly_dead(totals: Totals) -> str:
    reasons = ", ".join(f"{number} {reason}" for reason, number in totals.dead_reasons.items())
    return (
        f"{totals.dead} of the first {totals.rows} rows are dead letters ({reasons}). "
        "Look at the job's prompt block and at its input; finished rows are kept."
    )
