"""The driver's loop: carries events to the scheduler and its actions to the executor."""

from __future__ import annotations

import time
from collections.abc import Callable

from rdu_batch.errors import StoppedEarly
from rdu_batch.report.metrics import EndedLease, MetricsSink, Sinks
from rdu_batch.report.progress import MAX_WORKER_LINES, Progress, Snapshot
from rdu_batch.report.wording import counted
from rdu_batch.runner.actions import Action, Assign, Dismiss, Finish, GiveUp, StartWorker
from rdu_batch.runner.executor import (
    Executor,
    JobFailed,
    RoomChanged,
    TaskDone,
    WorkerEvent,
    WorkerLeaving,
    WorkerLost,
    WorkerReady,
)
from rdu_batch.runner.leases import Lease, LeaseDone, Task
from rdu_batch.runner.run_account import RunAccount
from rdu_batch.runner.scheduler import Scheduler
from rdu_batch.runner.stops import StopRequest
from rdu_batch.runner.throughput import Throughput
from rdu_batch.runner.time_spent import TimeSpent
from rdu_batch.runner.worker_seconds import WorkerLedger

#: How long one wait for events may take; a stop request is seen at least this often.
POLL_INTERVAL_S = 0.2
#: How often the cluster is asked how many workers it has room for.
ROOM_INTERVAL_S = 5.0
#: Without any worker for this long, say what may be the matter.
HINT_AFTER_S = 20.0


class Driver:
    """Runs one epoch of a job until every shard is committed, or says why not.

    Args:
        scheduler: decides.
        executor: reaches the workers.
        start_timeout_s: a first session must be ready by then.
        rows_done_before: rows that earlier epochs made durable, for progress.
        num_wanted: how many workers there should be now; None where that never changes.
        owns: whether this epoch still counts; False where that is unknown (see ``Heartbeat.owns``).
        metrics: where its numbers go; None for nowhere.
        now_s: monotonic seconds.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        *,
        stop: StopRequest,
        progress: Progress,
        start_timeout_s: float,
        rows_done_before: int,
        num_wanted: Callable[[], int] | None = None,
        owns: Callable[[], bool] = lambda: True,
        metrics: MetricsSink | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._stop = stop
        self._progress = progress
        self._start_timeout_s = start_timeout_s
        self._rows_done_before = rows_done_before
        self._num_wanted = num_wanted
        self._owns = owns
        self._metrics = metrics or Sinks()
        self._now_s = now_s
        self._started_s = self._last_count_s = now_s()
        self._ready_since_s: float | None = None
        self._alone_since_s = now_s()
        self._has_hinted = False
        self._ledger = WorkerLedger()
        self._throughput = Throughput()
        #: Rows and generated tokens that are in the account.
        self._entered = (0, 0)

    def run(self) -> None:
        """Loop until the job is finished.

        Raises:
            Interrupted: a stop was asked for.
            OutputOwned: a later epoch exists.
            StoppedEarly: the scheduler gave up, or no session became ready in time.
            RduBatchError: a worker met an error that ends the job.
        """
        if self._carry_out(self._scheduler.begin()):
            return
        self._show()
        while True:
            self._stop.check()
            events = self._executor.next_events(POLL_INTERVAL_S)
            self._wait_until_sure()
            for event in events:
                self._note(event)
                now_s = self._now_s()
                actions = self._scheduler.on(event, now_s)
                self._enter(event, now_s)
                if self._carry_out(actions):
                    self._show()
                    return
            self._look_around()
            self._check_started()
            self._show()

    def _look_around(self) -> None:
        """What time brings, rather than events: late tasks, and room for more workers."""
        now_s = self._now_s()
        self._carry_out(self._scheduler.tick(now_s))
        if self._num_wanted is None or now_s - self._last_count_s < ROOM_INTERVAL_S:
            return
        self._last_count_s = now_s
        changed = RoomChanged(self._num_wanted())
        if changed.num_workers != self._scheduler.num_workers:
            self._carry_out(self._scheduler.on(changed, now_s))

    def _wait_until_sure(self) -> None:
        """Do nothing while another driver may have taken over; a stop is still heard."""
        if self._owns():
            return
        self._progress.phase(
            "this driver stood still, or cannot reach the output's store, for so long that another "
            "may have taken over; nothing is handed out until that is known"
        )
        while not self._owns():
            self._stop.check()
            time.sleep(POLL_INTERVAL_S)

    def _carry_out(self, actions: list[Action]) -> bool:
        """Do what the scheduler says; True when the job is finished."""
        for action in actions:
            if isinstance(action, StartWorker):
                self._ledger.start(action.worker_id, self._now_s())
                self._executor.start_worker(action.worker_id)
            elif isinstance(action, Assign):
                self._ledger.assign(action.worker_id, self._now_s(), _in_words(action.task))
                self._executor.assign(action.worker_id, action.task)
            elif isinstance(action, Dismiss):
                self._executor.dismiss(action.worker_id)
                self._ledger.dismiss(action.worker_id, self._now_s())
            elif isinstance(action, GiveUp):
                raise StoppedEarly(f"the job was stopped early: {action.reason}")
            elif isinstance(action, Finish):
                return True
        return False

    def account(self) -> RunAccount:
        """What the workers did and when, closed: to be asked for once, at the end."""
        self._ledger.close(self._now_s())
        return RunAccount(self._ledger.seconds, tuple(self._ledger.accounts), self._throughput)

    def _enter(self, event: WorkerEvent, now_s: float) -> None:
        """Enter an event into the account of the workers' time and of what they did in it."""
        counts = self._scheduler.last_answer_counts
        if isinstance(event, WorkerReady):
            self._ledger.ready(event.worker_id, now_s)
        elif isinstance(event, TaskDone):
            self._enter_rows(event.worker_id, event.answer.spent.total_s, now_s)
            self._ledger.answer(event.worker_id, event.answer.spent, now_s, counts=counts)
            if isinstance(event.answer, LeaseDone):
                self._metrics.lease_ended(_ended(event.worker_id, event.answer))
        elif isinstance(event, WorkerLost):
            kept = event.done.spent if event.done is not None and counts else TimeSpent()
            self._enter_rows(event.worker_id, kept.total_s, now_s)
            self._ledger.lose(event.worker_id, kept, now_s)

    def _enter_rows(self, worker_id: int, took_s: float, now_s: float) -> None:
        """Enter what the last event added to the job; it took the worker so long."""
        totals = self._scheduler.leased_totals
        rows, tokens = totals.rows - self._entered[0], totals.generated_tokens - self._entered[1]
        if not rows:
            return
        self._entered = (totals.rows, totals.generated_tokens)
        self._ledger.gain(worker_id, rows=rows, generated_tokens=tokens)
        end_s = now_s - self._started_s
        self._throughput.add(end_s - took_s, end_s, rows=rows, generated_tokens=tokens)

    def _note(self, event: WorkerEvent) -> None:
        if isinstance(event, JobFailed):
            raise event.error
        if isinstance(event, WorkerReady):
            if self._ready_since_s is None:
                self._ready_since_s = self._now_s()
            self._progress.phase(
                f"worker {event.worker_id} is ready, its session opened in {event.start_s:.1f} s"
            )
        elif isinstance(event, WorkerLost):
            first_line = event.cause.strip().splitlines()[0] if event.cause.strip() else "unknown"
            self._progress.phase(f"worker {event.worker_id} is lost: {first_line}")
        elif isinstance(event, WorkerLeaving):
            self._progress.phase(f"worker {event.worker_id} ends with its task: its node goes away")

    def _check_started(self) -> None:
        now_s = self._now_s()
        if self._scheduler.num_workers_alive:
            self._alone_since_s = now_s
            self._has_hinted = False
        alone_s = now_s - self._alone_since_s
        if alone_s > HINT_AFTER_S and not self._has_hinted:
            self._has_hinted = True
            self._progress.phase(
                "still no worker: the cluster may have no room for one (see the workers block of "
                "the job file and `ray status`), or its session takes long to open"
            )
        if alone_s > self._start_timeout_s:
            raise StoppedEarly(
                f"no session was ready in {self._start_timeout_s:g} s (limits.start_timeout_s). "
                "Either the cluster has no room for one worker (see the workers block of the job "
                "file and `ray status`), or opening the artifact takes longer than that."
            )

    def _show(self) -> None:
        totals, plan = self._scheduler.leased_totals, self._scheduler.plan
        now_s = self._now_s()
        snapshot = Snapshot(
            elapsed_s=now_s - self._started_s,
            rows=plan.num_rows,
            rows_done=self._rows_done_before + totals.rows,
            rows_done_before=self._rows_done_before,
            dead=totals.dead,
            generated_tokens=totals.generated_tokens,
            shards=plan.num_shards,
            shards_committed=self._scheduler.num_shards_committed,
            workers=self._scheduler.num_workers_alive,
            working_s=now_s - self._ready_since_s if self._ready_since_s is not None else 0.0,
            worker_lines=tuple(self._ledger.now(now_s, MAX_WORKER_LINES)),
        )
        self._progress.update(snapshot)
        self._metrics.show(snapshot)


def _in_words(task: Task) -> str:
    if isinstance(task, Lease):
        return f"shard {task.shard}, {counted(task.num_rows, 'row')}"
    return f"seals shard {task.shard}"


def _ended(worker_id: int, done: LeaseDone) -> EndedLease:
    return EndedLease(
        worker_id,
        done.shard,
        done.first_row,
        done.end_row,
        done.totals.dead,
        done.totals.generated_tokens,
        done.spent.total_s,
    )
