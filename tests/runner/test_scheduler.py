"""The scheduler: invariants under arbitrary orders of events, and single decisions."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rdu_batch.job.plan import Plan
from rdu_batch.runner.actions import Assign, Dismiss, Finish, GiveUp, StartWorker
from rdu_batch.runner.executor import RoomChanged, TaskDone, WorkerLeaving, WorkerLost, WorkerReady
from rdu_batch.runner.leases import Lease, LeaseDone, SealDone, SealTask
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.scheduler import EARLY_STOP_ROWS, Scheduler
from rdu_batch.runner.shard_progress import RowRange, with_suspects
from rdu_batch.runner.time_spent import TimeSpent

ATTEMPTS_PER_ROW = 3


def plan_of(num_rows: int, rows_per_shard: int) -> Plan:
    return Plan(
        version=1,
        name="test",
        job_digest="sha256:0",
        decides={},
        num_files=1,
        num_rows=num_rows,
        num_bytes=num_rows,
        rows_per_shard=rows_per_shard,
        index_pages=(),
        longest_rows=(),
    )


def done(lease: Lease, *, end_row: int | None = None, dead: int = 0, rows_s: float = 1.0):
    """The answer of a worker that ran a lease, up to ``end_row`` if it was cut short."""
    end_row = lease.end_row if end_row is None else end_row
    rows = end_row - lease.first_row
    totals = Totals(rows=rows, predictions=rows - dead, dead=dead)
    is_committed = lease.covers_shard and end_row == lease.end_row
    spent = TimeSpent(decode_s=rows_s)
    return LeaseDone(
        lease.lease_id, lease.shard, lease.first_row, end_row, is_committed, totals, spent
    )


def rows_of(task, shard):
    """The rows of a task: a shard to seal has all of them."""
    task = task if isinstance(task, Lease) else shard
    return set(range(task.first_row, task.end_row))


def same_work(one, other):
    """Whether two tasks are copies of each other."""
    if isinstance(one, Lease) and isinstance(other, Lease):
        return (one.first_row, one.end_row, one.shard) == (
            other.first_row,
            other.end_row,
            other.shard,
        )
    return one == other


class SchedulerMachine(RuleBasedStateMachine):
    """A model of workers and of what is durable, driven by every order of events."""

    @initialize(
        num_rows=st.integers(0, 40),
        is_tail=st.booleans(),
        rows_per_shard=st.integers(1, 15),
        num_workers=st.integers(1, 4),
        draw=st.data(),
    )
    def begin(self, num_rows, is_tail, rows_per_shard, num_workers, draw):
        if is_tail:  # Workers run out of rows at once, and late tasks are copied.
            num_workers += 1
            num_rows = num_workers + draw.draw(st.integers(0, 4))
        self.plan = plan_of(num_rows, rows_per_shard)
        shards = range(self.plan.num_shards)
        is_new = is_tail or draw.draw(st.booleans())
        committed = set() if is_new else draw.draw(st.sets(st.sampled_from(shards)))
        begun = {}
        self.durable, self.suspects, self.given_up = set(), set(), set()
        for index in shards:
            shard = self.plan.shard(index)
            rows = range(shard.first_row, shard.end_row)
            if index in committed:
                self.durable |= set(rows)
            elif not is_new and rows and draw.draw(st.booleans()):
                cut = draw.draw(st.sampled_from(rows))
                self.durable |= set(range(shard.first_row, cut))
                begun[index] = with_suspects([(cut, shard.end_row)], self.draw_suspect(draw, rows))
        self.committed = set(committed)
        self.starting, self.idle, self.tasks, self.leaving = set(), set(), {}, set()
        #: Workers whose task another one answered; damaged rows.
        self.losers, self.damaged = set(), set()
        self.finished = self.gave_up = False
        self.now_s = 0.0
        self.scheduler = Scheduler(self.plan, num_workers, ATTEMPTS_PER_ROW, committed, begun)
        self.carry_out(self.scheduler.begin())
        while is_new and self.starting:
            worker_id = self.starting.pop()
            self.idle.add(worker_id)
            self.tell(WorkerReady(worker_id, 1.0))

    def draw_suspect(self, draw, rows):
        """At most one row of a begun shard that earlier epochs had tried alone."""
        if not draw.draw(st.booleans()):
            return []
        row, strikes = draw.draw(st.sampled_from(rows)), draw.draw(st.integers(0, 4))
        if row not in self.durable:
            self.suspects.add(row)
            if strikes >= ATTEMPTS_PER_ROW:
                self.given_up.add(row)
        return [RowRange(row, row + 1, strikes, "session_killed", is_suspect=True)]

    def tell(self, event):
        self.carry_out(self.scheduler.on(event, self.now_s))

    def carry_out(self, actions):
        for action in actions:
            if isinstance(action, StartWorker):
                self.starting.add(action.worker_id)
            elif isinstance(action, Assign):
                assert action.worker_id in self.idle
                self.idle.discard(action.worker_id)
                self.check_task(action.task)
                self.tasks[action.worker_id] = action.task
            elif isinstance(action, Dismiss):
                assert action.worker_id not in self.tasks
                self.idle.discard(action.worker_id)
                self.starting.discard(action.worker_id)
                self.leaving.discard(action.worker_id)
            elif isinstance(action, Finish):
                self.finished = True
            elif isinstance(action, GiveUp):
                self.gave_up = True

    def copies_of(self, task):
        """Workers that have the same task, but for those whose answer counts for nothing."""
        return [
            worker_id
            for worker_id, other in self.tasks.items()
            if same_work(other, task) and worker_id not in self.losers
        ]

    def check_task(self, task):
        shard = self.plan.shard(task.shard)
        rows = rows_of(task, shard)
        assert task.shard not in self.committed
        assert rows <= set(range(shard.first_row, shard.end_row))
        copies = self.copies_of(task)
        assert len(copies) <= 1
        if isinstance(task, SealTask):
            assert rows - self.damaged <= self.durable
        elif copies:
            assert not (len(rows) == 1 and rows & self.suspects)
        else:
            assert not rows & self.durable
        if isinstance(task, Lease):
            assert task.is_suspect == bool(rows & self.suspects)
            assert not task.is_suspect or len(rows) == 1
            assert task.dead_reason or not rows & self.given_up
        for worker_id, other in self.tasks.items():
            if worker_id not in copies and worker_id not in self.losers:
                assert not rows & rows_of(other, self.plan.shard(other.shard))

    def goes_on(self):
        return not (self.finished or self.gave_up)

    @precondition(lambda self: self.goes_on() and self.starting)
    @rule(data=st.data())
    def a_worker_gets_ready(self, data):
        worker_id = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.discard(worker_id)
        self.idle.add(worker_id)
        self.tell(WorkerReady(worker_id, 1.0))

    @precondition(lambda self: self.goes_on() and self.starting)
    @rule(data=st.data())
    def a_start_may_fail(self, data):
        worker_id = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.discard(worker_id)
        if data.draw(st.integers(0, 2)):
            self.idle.add(worker_id)
            self.tell(WorkerReady(worker_id, 1.0))
        else:
            self.tell(WorkerLost(worker_id, "no start", session_died=True))

    @precondition(lambda self: self.goes_on())
    @rule(num_workers=st.integers(1, 6))
    def the_cluster_changes(self, num_workers):
        self.tell(RoomChanged(num_workers))

    @precondition(lambda self: self.goes_on() and (self.starting or self.idle or self.tasks))
    @rule(data=st.data())
    def a_node_goes_away(self, data):
        workers = sorted({*self.starting, *self.idle, *self.tasks})
        worker_id = data.draw(st.sampled_from(workers))
        if worker_id in self.tasks:
            self.leaving.add(worker_id)
        self.tell(WorkerLeaving(worker_id))
        assert worker_id not in self.idle | self.starting

    @precondition(lambda self: self.goes_on() and self.tasks)
    @rule(data=st.data(), rows_s=st.floats(0, 100))
    def a_task_is_done(self, data, rows_s):
        worker_id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[worker_id]
        if isinstance(task, Lease):
            cut_short = task.num_rows > 1 and data.draw(st.booleans())
            end_row = data.draw(st.integers(task.first_row, task.end_row)) if cut_short else None
            self.answer(worker_id, done(task, end_row=end_row, rows_s=rows_s))
        else:
            shard = self.plan.shard(task.shard)
            if (
                shard.num_rows
                and worker_id not in self.losers
                and data.draw(st.integers(0, 9)) == 0
            ):
                row = data.draw(st.integers(shard.first_row, shard.end_row - 1))
                self.durable.discard(row)
                self.damaged.add(row)
            self.answer(worker_id, self.sealed(task))
        if self.goes_on() and data.draw(st.booleans()):
            self.now_s += 1000.0  # Every other task is late, whatever it is.
            self.carry_out(self.scheduler.tick(self.now_s))

    def sealed(self, task):
        shard = self.plan.shard(task.shard)
        missing = () if task.shard in self.committed else rows_of(task, shard) - self.durable
        return SealDone(task.shard, Totals(), tuple((row, row + 1) for row in sorted(missing)))

    def answer(self, worker_id, answer):
        """A worker's task is over; a leaving worker gets no other."""
        task = self.tasks.pop(worker_id)
        is_whole = not (
            answer.missing if isinstance(answer, SealDone) else answer.end_row < task.end_row
        )
        if worker_id not in self.losers and is_whole:
            self.losers.update(self.copies_of(task))
        if isinstance(answer, LeaseDone):
            self.note_durable(worker_id, range(answer.first_row, answer.end_row))
        self.losers.discard(worker_id)
        if is_whole and (isinstance(answer, SealDone) or answer.is_committed):
            self.committed.add(task.shard)
        self.idle.add(worker_id)
        is_leaving = worker_id in self.leaving
        self.tell(TaskDone(worker_id, answer))
        if is_leaving and self.goes_on():
            assert worker_id not in self.idle | set(self.tasks)

    @precondition(lambda self: self.goes_on() and self.tasks)
    @rule(data=st.data(), session_died=st.booleans())
    def a_busy_worker_is_lost(self, data, session_died):
        worker_id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks.pop(worker_id)
        self.leaving.discard(worker_id)
        row = kept = None
        if isinstance(task, Lease) and session_died and task.num_rows and data.draw(st.booleans()):
            row = data.draw(st.integers(task.first_row, task.end_row - 1))
        if isinstance(task, Lease) and session_died and data.draw(st.booleans()):
            kept = self.keep(worker_id, task, row if row is not None else task.end_row, data)
        is_alone = worker_id not in self.losers and not self.copies_of(task)
        if row is not None and is_alone and row not in self.durable:
            self.suspects.add(row)
        self.losers.discard(worker_id)
        self.tell(WorkerLost(worker_id, "died", session_died, row, done=kept))

    def note_durable(self, worker_id, rows):
        """These rows are durable; of a copy that came late those that are damaged do not count.

        The scheduler hears nothing of what a late copy stored: they may run once more.
        """
        counted = set(rows) - (self.damaged if worker_id in self.losers else set())
        self.durable |= counted
        self.damaged -= self.durable
        self.suspects -= self.durable

    def keep(self, worker_id, task, latest_end_row, data):
        """What a dead session had finished became durable; all of it, if it died between rows."""
        end_row = data.draw(st.integers(task.first_row, latest_end_row))
        self.note_durable(worker_id, range(task.first_row, end_row))
        if end_row == task.end_row and worker_id not in self.losers:
            self.losers.update(self.copies_of(task))
        rows = end_row - task.first_row
        totals = Totals(rows=rows, predictions=rows)
        return LeaseDone(task.lease_id, task.shard, task.first_row, end_row, totals=totals)

    @precondition(lambda self: self.goes_on() and self.idle)
    @rule(data=st.data())
    def an_idle_worker_is_lost(self, data):
        worker_id = data.draw(st.sampled_from(sorted(self.idle)))
        self.idle.discard(worker_id)
        self.tell(WorkerLost(worker_id, "gone", session_died=False))

    @precondition(lambda self: not self.goes_on())
    @rule()
    def nothing_happens_after_the_end(self):
        """A machine needs a step that is possible in every state."""

    @invariant()
    def it_never_waits_for_nobody(self):
        """Someone starts or works, unless the job is over: the loop can always go on."""
        if self.goes_on():
            assert self.starting or self.tasks

    @invariant()
    def it_finishes_exactly_when_all_is_committed(self):
        all_committed = self.committed == set(range(self.plan.num_shards))
        assert self.finished == (all_committed and not self.gave_up)

    def teardown(self):
        """From wherever the machine stopped, calm weather finishes the job."""
        for _ in range(1000):
            if not hasattr(self, "scheduler") or not self.goes_on():
                return
            if self.starting:
                worker_id = self.starting.pop()
                self.idle.add(worker_id)
                self.tell(WorkerReady(worker_id, 1.0))
            worker_id = next(iter(self.tasks), None)
            if worker_id is not None:
                task = self.tasks[worker_id]
                is_lease = isinstance(task, Lease)
                self.answer(worker_id, done(task) if is_lease else self.sealed(task))
        pytest.fail("the job did not end in 1000 calm steps")


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=200, stateful_step_count=60)


def started(num_rows=100, rows_per_shard=100, num_workers=1, attempts_per_row=3):
    """A scheduler whose workers are ready, and the tasks they were given by worker."""
    scheduler = Scheduler(plan_of(num_rows, rows_per_shard), num_workers, attempts_per_row)
    tasks = {}
    for start in scheduler.begin():
        for action in scheduler.on(WorkerReady(start.worker_id, 1.0), now_s=0.0):
            tasks[action.worker_id] = action.task
    return scheduler, tasks


def next_task(actions):
    (task,) = [action.task for action in actions if isinstance(action, Assign)]
    return task


def lease_sizes(num_rows, row_s, num_leases=6):
    """Rows of the first leases of a job of one shard, on one worker."""
    scheduler, tasks = started(num_rows=num_rows, rows_per_shard=num_rows)
    sizes = []
    task = tasks[0]
    for _ in range(num_leases):
        sizes.append(task.num_rows)
        answer = done(task, rows_s=row_s * task.num_rows)
        task = next_task(scheduler.on(TaskDone(0, answer), now_s=0.0))
    return sizes


def test_leases_grow_from_one_row_to_the_target_time():
    """Nothing is known of a row's time at first; then leases aim at ten seconds, growing slowly."""
    assert lease_sizes(800, row_s=0.5) == [1, 4, 16, 20, 20, 20]


def test_leases_of_a_long_job_take_a_minute():
    """Each lease costs the driver and the store: a job of hours gets fewer, longer ones."""
    assert lease_sizes(100_000, row_s=0.5) == [1, 4, 16, 64, 120, 120]


def test_one_quick_row_does_not_make_a_lease_of_a_whole_shard():
    """A dead letter takes microseconds, the row after it may take seconds."""
    scheduler, tasks = started(num_rows=10_000, rows_per_shard=10_000)
    task = next_task(scheduler.on(TaskDone(0, done(tasks[0], dead=1, rows_s=3e-5)), now_s=0.0))
    assert task.num_rows == 4


def test_leases_shrink_toward_the_end():
    """The last rows are shared out finely, so that no worker is left with a long tail."""
    scheduler, tasks = started(num_rows=10, rows_per_shard=10)
    sizes = []
    task = tasks[0]
    while isinstance(task, Lease):
        sizes.append(task.num_rows)
        task = next_task(scheduler.on(TaskDone(0, done(task, rows_s=0.001)), now_s=0.0))
    assert sizes == [1, 4, 3, 1, 1]


def test_a_small_shard_is_one_lease_without_a_segment():
    """When a shard fits the target, its lease covers it and seals at once."""
    scheduler, tasks = started(num_rows=40, rows_per_shard=4)
    first = next_task(scheduler.on(TaskDone(0, done(tasks[0], rows_s=0.001)), now_s=0.0))
    assert (first.shard, first.covers_shard) == (0, False)
    seal = next_task(scheduler.on(TaskDone(0, done(first, rows_s=0.001)), now_s=0.0))
    assert seal == SealTask(0)
    whole = next_task(scheduler.on(TaskDone(0, SealDone(0, Totals())), now_s=0.0))
    assert (whole.shard, whole.covers_shard) == (1, True)


def test_a_row_that_kills_its_session_is_isolated_then_given_up():
    """The suspect runs alone; after its strikes a worker is told to write its dead letter."""
    scheduler, tasks = started(num_rows=100, attempts_per_row=2)
    task = next_task(scheduler.on(TaskDone(0, done(tasks[0], rows_s=1.0)), now_s=0.0))
    assert (task.first_row, task.end_row) == (1, 5)
    worker_id, leases = 0, []
    while not leases or not leases[-1].dead_reason:
        if not task.first_row <= 3 < task.end_row:
            task = next_task(scheduler.on(TaskDone(worker_id, done(task)), now_s=0.0))
        else:
            (start,) = scheduler.on(
                WorkerLost(worker_id, "signal SIGSEGV", session_died=True, row=3), now_s=0.0
            )
            worker_id = start.worker_id
            task = next_task(scheduler.on(WorkerReady(worker_id, 1.0), now_s=0.0))
        leases.append(task)
    ranges = [(lease.first_row, lease.end_row, lease.dead_reason) for lease in leases]
    assert ranges == [(1, 3, None), (3, 4, None), (3, 4, None), (3, 4, "session_killed")]


def test_rows_that_a_dead_session_had_finished_do_not_run_again():
    """They count at once; the suspect runs alone, the rows after it in a lease of their own."""
    scheduler, tasks = started(num_rows=100, attempts_per_row=2)
    first = next_task(scheduler.on(TaskDone(0, done(tasks[0], rows_s=1.0)), now_s=0.0))
    kept = LeaseDone(first.lease_id, 0, 1, 3, totals=Totals(rows=2, predictions=2))
    lost = WorkerLost(0, "signal SIGSEGV", session_died=True, row=3, done=kept)
    (start,) = scheduler.on(lost, now_s=0.0)
    assert scheduler.leased_totals.rows == 3
    suspect = next_task(scheduler.on(WorkerReady(start.worker_id, 1.0), now_s=0.0))
    assert (suspect.first_row, suspect.end_row, suspect.is_suspect) == (3, 4, True)
    after = next_task(scheduler.on(TaskDone(start.worker_id, done(suspect)), now_s=0.0))
    assert (after.first_row, after.is_suspect) == (4, False)


def test_a_lease_whose_rows_were_all_finished_is_sealed_not_run_again():
    """The session died while it stored them; its watcher did that."""
    scheduler, tasks = started(num_rows=1)
    kept = LeaseDone(0, 0, 0, 1, totals=Totals(rows=1, predictions=1))
    (start,) = scheduler.on(
        WorkerLost(0, "signal SIGKILL", session_died=True, done=kept), now_s=0.0
    )
    assert tasks[0].covers_shard
    assert next_task(scheduler.on(WorkerReady(start.worker_id, 1.0), now_s=0.0)) == SealTask(0)


def test_strikes_of_earlier_epochs_count():
    """A row with all its strikes is given up at once; one with fewer is tried alone again."""
    begun = {0: [RowRange(0, 1, 2, "row_timeout", is_suspect=True), RowRange(1, 10)]}
    for attempts_per_row, reason in ((2, "row_timeout"), (3, None)):
        scheduler = Scheduler(plan_of(10, 10), 1, attempts_per_row, begun=begun)
        scheduler.begin()
        task = next_task(scheduler.on(WorkerReady(0, 1.0), now_s=0.0))
        assert (task.end_row, task.is_suspect, task.dead_reason) == (1, True, reason)


def test_a_lost_node_is_never_held_against_a_row():
    """However often the actor of a row is lost, the row stays in a common lease."""
    scheduler, tasks = started(num_rows=1, attempts_per_row=1)
    worker_id, task = 0, tasks[0]
    for _ in range(10):
        lost = WorkerLost(worker_id, "node died", session_died=False, row=0)
        (start,) = scheduler.on(lost, now_s=0.0)
        worker_id = start.worker_id
        task = next_task(scheduler.on(WorkerReady(worker_id, 1.0), now_s=0.0))
        assert task.dead_reason is None


def test_nodes_that_keep_getting_lost_end_the_job_at_last():
    """Never held against a row, but not for ever."""
    scheduler, _ = started(num_rows=1)
    worker_id = 0
    for _ in range(100):
        (action,) = scheduler.on(WorkerLost(worker_id, "node died", session_died=False), now_s=0.0)
        if isinstance(action, GiveUp):
            break
        worker_id = action.worker_id
        scheduler.on(WorkerReady(worker_id, 1.0), now_s=0.0)
    assert isinstance(action, GiveUp)
    assert "node died" in action.reason


def test_one_actor_lost_while_it_opens_is_not_the_end_of_a_one_worker_job():
    """A preempted node says nothing about the next one."""
    scheduler = Scheduler(plan_of(10, 10), 1, 3)
    scheduler.begin()
    (action,) = scheduler.on(WorkerLost(0, "preempted", session_died=False), now_s=0.0)
    assert isinstance(action, StartWorker)


def test_the_job_stops_at_once_when_every_session_fails_to_start():
    """Both of two workers fail alike: give up, with the cause."""
    scheduler = Scheduler(plan_of(10, 10), 2, 3)
    scheduler.begin()
    scheduler.on(WorkerLost(0, "no such file: model", session_died=True), now_s=0.0)
    (action,) = scheduler.on(WorkerLost(1, "no such file: model", session_died=True), now_s=0.0)
    assert isinstance(action, GiveUp)
    assert "no such file: model" in action.reason


def test_the_only_worker_may_fail_to_start_once():
    """Something else may have killed it; the second time it is the session's own doing."""
    scheduler = Scheduler(plan_of(10, 10), 1, 3)
    scheduler.begin()
    actions = scheduler.on(WorkerLost(0, "killed", session_died=True), now_s=0.0)
    assert actions == [StartWorker(1)]
    (gives_up,) = scheduler.on(WorkerLost(1, "killed", session_died=True), now_s=0.0)
    assert isinstance(gives_up, GiveUp)


def test_one_worker_that_fails_to_start_is_replaced():
    """A flaky minority is tolerated while another worker is ready."""
    scheduler = Scheduler(plan_of(10, 10), 2, 3)
    first, second = scheduler.begin()
    scheduler.on(WorkerReady(first.worker_id, 1.0), now_s=0.0)
    actions = scheduler.on(WorkerLost(second.worker_id, "flaky", session_died=True), now_s=0.0)
    assert [type(action) for action in actions] == [StartWorker]


def test_a_job_that_is_mostly_dead_stops_early():
    """After a thousand rows with more dead letters than predictions, the rest is not burnt."""
    scheduler, tasks = started(num_rows=100_000, rows_per_shard=100_000)
    task = tasks[0]
    rows = 0
    while True:
        rows += task.num_rows
        answer = done(task, dead=task.num_rows, rows_s=0.01 * task.num_rows)
        actions = scheduler.on(TaskDone(0, answer), now_s=0.0)
        if isinstance(actions[0], GiveUp):
            break
        task = next_task(actions)
    assert rows >= EARLY_STOP_ROWS
    assert "dead letters" in actions[0].reason


def test_a_job_never_starts_more_workers_than_it_has_rows():
    """Two rows need two sessions, whatever the cluster has."""
    assert len(Scheduler(plan_of(2, 10), 8, 3).begin()) == 2


def test_a_job_without_rows_still_seals_its_empty_shard():
    """One worker is enough to write the empty part."""
    scheduler, tasks = started(num_rows=0)
    assert tasks[0].covers_shard
    assert scheduler.on(TaskDone(0, done(tasks[0])), now_s=0.0) == [Finish()]
