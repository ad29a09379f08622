"""The scheduler: invariants under arbitrary orders of events, and single decisions."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rdu_batch.job.plan import Plan
from rdu_batch.runner.actions import Assign, Finish, GiveUp, StartWorker
from rdu_batch.runner.executor import TaskDone, WorkerLost, WorkerReady
from rdu_batch.runner.leases import Lease, LeaseDone, SealDone, SealTask
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.scheduler import EARLY_STOP_ROWS, Scheduler


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
    return LeaseDone(
        lease.lease_id, lease.shard, lease.first_row, end_row, is_committed, totals, rows_s
    )


class SchedulerMachine(RuleBasedStateMachine):
    """A model of workers and of what is durable, driven by every order of events."""

    @initialize(
        num_rows=st.integers(0, 40),
        rows_per_shard=st.integers(1, 15),
        num_workers=st.integers(1, 4),
        draw=st.data(),
    )
    def begin(self, num_rows, rows_per_shard, num_workers, draw):
        self.plan = plan_of(num_rows, rows_per_shard)
        shards = range(self.plan.num_shards)
        committed = draw.draw(st.sets(st.sampled_from(shards)))
        begun = {}
        self.durable = set()
        for index in shards:
            shard = self.plan.shard(index)
            rows = range(shard.first_row, shard.end_row)
            if index in committed:
                self.durable |= set(rows)
            elif draw.draw(st.booleans()) and rows:
                cut = draw.draw(st.sampled_from(rows))
                self.durable |= set(range(shard.first_row, cut))
                begun[index] = [(cut, shard.end_row)]
        self.committed = set(committed)
        self.starting, self.idle, self.tasks = set(), set(), {}
        self.finished = self.gave_up = False
        self.scheduler = Scheduler(self.plan, num_workers, 3, committed, begun)
        self.carry_out(self.scheduler.begin())

    def carry_out(self, actions):
        for action in actions:
            if isinstance(action, StartWorker):
                self.starting.add(action.worker_id)
            elif isinstance(action, Assign):
                assert action.worker_id in self.idle
                self.idle.discard(action.worker_id)
                self.check_task(action.task)
                self.tasks[action.worker_id] = action.task
            elif isinstance(action, Finish):
                self.finished = True
            elif isinstance(action, GiveUp):
                self.gave_up = True

    def check_task(self, task):
        shard = self.plan.shard(task.shard)
        assert task.shard not in self.committed
        if isinstance(task, SealTask):
            assert set(range(shard.first_row, shard.end_row)) <= self.durable
            assert not any(t.shard == task.shard for t in self.tasks.values())
            return
        rows = set(range(task.first_row, task.end_row))
        assert not rows & self.durable
        assert rows <= set(range(shard.first_row, shard.end_row))
        for other in self.tasks.values():
            if isinstance(other, Lease):
                assert not rows & set(range(other.first_row, other.end_row))
            else:
                assert other.shard != task.shard

    def goes_on(self):
        return not (self.finished or self.gave_up)

    @precondition(lambda self: self.goes_on() and self.starting)
    @rule(data=st.data())
    def a_worker_gets_ready(self, data):
        worker_id = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.discard(worker_id)
        self.idle.add(worker_id)
        self.carry_out(self.scheduler.on(WorkerReady(worker_id, 1.0)))

    @precondition(lambda self: self.goes_on() and self.starting)
    @rule(data=st.data())
    def a_start_fails(self, data):
        worker_id = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.discard(worker_id)
        self.carry_out(self.scheduler.on(WorkerLost(worker_id, "no start", session_died=True)))

    @precondition(lambda self: self.goes_on() and self.tasks)
    @rule(data=st.data(), rows_s=st.floats(0, 100))
    def a_task_is_done(self, data, rows_s):
        worker_id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks.pop(worker_id)
        self.idle.add(worker_id)
        if isinstance(task, Lease):
            cut_short = task.num_rows > 1 and data.draw(st.booleans())
            end_row = data.draw(st.integers(task.first_row, task.end_row)) if cut_short else None
            answer = done(task, end_row=end_row, rows_s=rows_s)
            self.durable |= set(range(answer.first_row, answer.end_row))
            if answer.is_committed:
                self.committed.add(task.shard)
        else:
            shard = self.plan.shard(task.shard)
            missing = ()
            if shard.num_rows and data.draw(st.integers(0, 9)) == 0:
                row = data.draw(st.integers(shard.first_row, shard.end_row - 1))
                missing = ((row, row + 1),)
                self.durable.discard(row)
            else:
                self.committed.add(task.shard)
            answer = SealDone(task.shard, Totals(), missing)
        self.carry_out(self.scheduler.on(TaskDone(worker_id, answer)))

    @precondition(lambda self: self.goes_on() and self.tasks)
    @rule(data=st.data(), session_died=st.booleans())
    def a_busy_worker_is_lost(self, data, session_died):
        worker_id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks.pop(worker_id)
        row = None
        if isinstance(task, Lease) and session_died and task.num_rows and data.draw(st.booleans()):
            row = data.draw(st.integers(task.first_row, task.end_row - 1))
        self.carry_out(self.scheduler.on(WorkerLost(worker_id, "died", session_died, row)))

    @precondition(lambda self: self.goes_on() and self.idle)
    @rule(data=st.data())
    def an_idle_worker_is_lost(self, data):
        worker_id = data.draw(st.sampled_from(sorted(self.idle)))
        self.idle.discard(worker_id)
        self.carry_out(self.scheduler.on(WorkerLost(worker_id, "gone", session_died=False)))

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
                self.carry_out(self.scheduler.on(WorkerReady(worker_id, 1.0)))
            worker_id = next(iter(self.tasks), None)
            if worker_id is not None:
                task = self.tasks.pop(worker_id)
                self.idle.add(worker_id)
                if isinstance(task, Lease):
                    answer = done(task)
                    self.durable |= set(range(answer.first_row, answer.end_row))
                    if answer.is_committed:
                        self.committed.add(task.shard)
                else:
                    answer = SealDone(task.shard, Totals())
                    self.committed.add(task.shard)
                self.carry_out(self.scheduler.on(TaskDone(worker_id, answer)))
        pytest.fail("the job did not end in 1000 calm steps")


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def started(num_rows=100, rows_per_shard=100, num_workers=1, attempts_per_row=3):
    """A scheduler whose workers are ready, and the tasks they were given by worker."""
    scheduler = Scheduler(plan_of(num_rows, rows_per_shard), num_workers, attempts_per_row)
    tasks = {}
    for start in scheduler.begin():
        for action in scheduler.on(WorkerReady(start.worker_id, 1.0)):
            tasks[action.worker_id] = action.task
    return scheduler, tasks


def next_task(actions):
    (task,) = [action.task for action in actions if isinstance(action, Assign)]
    return task


def test_leases_grow_from_one_row_to_the_target_time():
    """Nothing is known of a row's time at first; then leases aim at ten seconds, growing slowly."""
    scheduler, tasks = started(num_rows=10_000, rows_per_shard=10_000)
    sizes = []
    task = tasks[0]
    for _ in range(5):
        sizes.append(task.num_rows)
        answer = done(task, rows_s=0.5 * task.num_rows)
        task = next_task(scheduler.on(TaskDone(0, answer)))
    assert sizes == [1, 4, 16, 20, 20]


def test_one_quick_row_does_not_make_a_lease_of_a_whole_shard():
    """A dead letter takes microseconds, the row after it may take seconds."""
    scheduler, tasks = started(num_rows=10_000, rows_per_shard=10_000)
    task = next_task(scheduler.on(TaskDone(0, done(tasks[0], dead=1, rows_s=3e-5))))
    assert task.num_rows == 4


def test_leases_shrink_toward_the_end():
    """The last rows are shared out finely, so that no worker is left with a long tail."""
    scheduler, tasks = started(num_rows=10, rows_per_shard=10)
    sizes = []
    task = tasks[0]
    while isinstance(task, Lease):
        sizes.append(task.num_rows)
        task = next_task(scheduler.on(TaskDone(0, done(task, rows_s=0.001))))
    assert sizes == [1, 4, 3, 1, 1]


def test_a_small_shard_is_one_lease_without_a_segment():
    """When a shard fits the target, its lease covers it and seals at once."""
    scheduler, tasks = started(num_rows=40, rows_per_shard=4)
    first = next_task(scheduler.on(TaskDone(0, done(tasks[0], rows_s=0.001))))
    assert (first.shard, first.covers_shard) == (0, False)
    seal = next_task(scheduler.on(TaskDone(0, done(first, rows_s=0.001))))
    assert seal == SealTask(0)
    whole = next_task(scheduler.on(TaskDone(0, SealDone(0, Totals()))))
    assert (whole.shard, whole.covers_shard) == (1, True)


def test_a_row_that_kills_its_session_is_isolated_then_given_up():
    """The suspect runs alone; after its strikes a worker is told to write its dead letter."""
    scheduler, tasks = started(num_rows=100, attempts_per_row=2)
    task = next_task(scheduler.on(TaskDone(0, done(tasks[0], rows_s=1.0))))
    assert (task.first_row, task.end_row) == (1, 5)
    worker_id, leases = 0, []
    while not leases or not leases[-1].dead_reason:
        if not task.first_row <= 3 < task.end_row:
            task = next_task(scheduler.on(TaskDone(worker_id, done(task))))
        else:
            (start,) = scheduler.on(
                WorkerLost(worker_id, "signal SIGSEGV", session_died=True, row=3)
            )
            worker_id = start.worker_id
            task = next_task(scheduler.on(WorkerReady(worker_id, 1.0)))
        leases.append(task)
    ranges = [(lease.first_row, lease.end_row, lease.dead_reason) for lease in leases]
    assert ranges == [(1, 3, None), (3, 4, None), (3, 4, None), (3, 4, "session_killed")]


def test_a_lost_node_is_never_held_against_a_row():
    """However often the actor of a row is lost, the row stays in a common lease."""
    scheduler, tasks = started(num_rows=1, attempts_per_row=1)
    worker_id, task = 0, tasks[0]
    for _ in range(10):
        lost = WorkerLost(worker_id, "node died", session_died=False, row=0)
        (start,) = scheduler.on(lost)
        worker_id = start.worker_id
        task = next_task(scheduler.on(WorkerReady(worker_id, 1.0)))
        assert task.dead_reason is None


def test_nodes_that_keep_getting_lost_end_the_job_at_last():
    """Never held against a row, but not for ever."""
    scheduler, _ = started(num_rows=1)
    worker_id = 0
    for _ in range(100):
        (action,) = scheduler.on(WorkerLost(worker_id, "node died", session_died=False))
        if isinstance(action, GiveUp):
            break
        worker_id = action.worker_id
        scheduler.on(WorkerReady(worker_id, 1.0))
    assert isinstance(action, GiveUp)
    assert "node died" in action.reason


def test_one_actor_lost_while_it_opens_is_not_the_end_of_a_one_worker_job():
    """A preempted node says nothing about the next one."""
    scheduler = Scheduler(plan_of(10, 10), 1, 3)
    scheduler.begin()
    (action,) = scheduler.on(WorkerLost(0, "preempted", session_died=False))
    assert isinstance(action, StartWorker)


def test_the_job_stops_at_once_when_every_session_fails_to_start():
    """Both of two workers fail alike: give up, with the cause."""
    scheduler = Scheduler(plan_of(10, 10), 2, 3)
    scheduler.begin()
    scheduler.on(WorkerLost(0, "no such file: model", session_died=True))
    (action,) = scheduler.on(WorkerLost(1, "no such file: model", session_died=True))
    assert isinstance(action, GiveUp)
    assert "no such file: model" in action.reason


def test_one_worker_that_fails_to_start_is_replaced():
    """A flaky minority is tolerated while another worker is ready."""
    scheduler = Scheduler(plan_of(10, 10), 2, 3)
    first, second = scheduler.begin()
    scheduler.on(WorkerReady(first.worker_id, 1.0))
    actions = scheduler.on(WorkerLost(second.worker_id, "flaky", session_died=True))
    assert [type(action) for action in actions] == [StartWorker]


def test_a_job_that_is_mostly_dead_stops_early():
    """After a thousand rows with more dead letters than predictions, the rest is not burnt."""
    scheduler, tasks = started(num_rows=100_000, rows_per_shard=100_000)
    task = tasks[0]
    rows = 0
    while True:
        rows += task.num_rows
        answer = done(task, dead=task.num_rows, rows_s=0.01 * task.num_rows)
        actions = scheduler.on(TaskDone(0, answer))
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
    assert scheduler.on(TaskDone(0, done(tasks[0]))) == [Finish()]
