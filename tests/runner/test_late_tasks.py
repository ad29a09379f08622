"""Slow, late and leaving workers: what the scheduler does about them."""

from rdu_batch.job.plan import Plan
from rdu_batch.runner.actions import Assign, Dismiss, Finish, StartWorker
from rdu_batch.runner.executor import (
    RoomChanged,
    TaskDone,
    WorkerLeaving,
    WorkerLost,
    WorkerReady,
)
from rdu_batch.runner.leases import Lease, LeaseDone, SealDone, SealTask
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.pace import LONGEST_TARGET_S
from rdu_batch.runner.scheduler import Scheduler
from rdu_batch.runner.tasks_out import LATE_FACTOR, LATE_UNKNOWN_S
from rdu_batch.runner.time_spent import TimeSpent


class Cluster:
    """A scheduler, its workers, and a clock of its own."""

    def __init__(self, num_rows, *, rows_per_shard=None, num_workers=2, attempts_per_row=3):
        plan = Plan(1, "test", "", {}, 1, num_rows, 1, rows_per_shard or max(1, num_rows), (), ())
        self.scheduler = Scheduler(plan, num_workers, attempts_per_row)
        self.now_s = 0.0
        self.tasks = {}
        self.actions = []
        self.carry_out(self.scheduler.begin())

    def carry_out(self, actions):
        """Start workers at once; keep what else was asked for."""
        self.actions = actions
        for action in actions:
            if isinstance(action, Assign):
                self.tasks[action.worker_id] = action.task
        for action in actions:
            if isinstance(action, StartWorker):
                self.tell(WorkerReady(action.worker_id, 1.0))

    def tell(self, event):
        self.carry_out(self.scheduler.on(event, self.now_s))

    def wait(self, seconds):
        self.now_s += seconds
        self.carry_out(self.scheduler.tick(self.now_s))

    def do(self, worker_id, *, row_s=1.0, end_row=None):
        """The worker answers its task, whole or up to a row, as if it had taken so long."""
        task = self.tasks.pop(worker_id)
        if isinstance(task, SealTask):
            self.tell(TaskDone(worker_id, SealDone(task.shard, Totals())))
            return
        end_row = task.end_row if end_row is None else end_row
        rows = end_row - task.first_row
        totals = Totals(rows=rows, predictions=rows)
        committed = task.covers_shard and end_row == task.end_row
        span = (task.first_row, end_row)
        spent = TimeSpent(decode_s=row_s * max(rows, 1))
        answer = LeaseDone(task.lease_id, task.shard, *span, committed, totals, spent)
        self.tell(TaskDone(worker_id, answer))


def two_workers_at_the_end():
    """Two rows, each out at one worker, each worker known to need a second a row."""
    cluster = Cluster(4, rows_per_shard=4)
    cluster.do(0)
    cluster.do(1)
    assert [task.num_rows for task in cluster.tasks.values()] == [1, 1]
    return cluster


def test_a_slow_worker_gets_short_leases():
    """Ten times slower, a tenth of the rows: both leases take about as long."""
    cluster = Cluster(100_000)
    for _ in range(12):
        cluster.do(0, row_s=0.1)
        cluster.do(1, row_s=1.0)
    assert cluster.tasks[0].num_rows == LONGEST_TARGET_S / 0.1
    assert cluster.tasks[1].num_rows == LONGEST_TARGET_S / 1.0


def test_a_late_task_is_given_to_an_idle_worker_too_and_counts_once():
    """The first answer commits; what the late one says afterwards changes nothing."""
    cluster = two_workers_at_the_end()
    late = cluster.tasks[1]
    cluster.do(0)
    assert 0 not in cluster.tasks
    cluster.wait(LATE_FACTOR + 0.5)
    copy = cluster.tasks[0]
    assert (copy.first_row, copy.end_row) == (late.first_row, late.end_row)
    assert copy.lease_id != late.lease_id
    assert cluster.scheduler.num_copies == 1
    cluster.do(0)
    assert cluster.tasks[0] == SealTask(0)
    cluster.do(1)
    assert cluster.scheduler.leased_totals.rows == 4
    cluster.do(0)
    assert cluster.actions == [Finish()]


def test_a_task_that_is_not_late_is_left_alone():
    """A worker that is about as quick as the others may take its time."""
    cluster = two_workers_at_the_end()
    cluster.do(0)
    cluster.wait(1.5)
    assert 0 not in cluster.tasks


def test_a_task_is_never_out_more_than_twice():
    """Three workers, one task that nobody answers."""
    cluster = Cluster(3, rows_per_shard=3, num_workers=3)
    cluster.do(0)
    cluster.do(1)
    for _ in range(5):
        cluster.wait(1000.0)
    assert len(cluster.tasks) == 2
    assert cluster.scheduler.num_copies == 1


def test_a_worker_that_hangs_while_it_seals_does_not_hold_the_job():
    """Sealing is a task like any other: the commit record decides who was first."""
    cluster = Cluster(4, rows_per_shard=4)
    while not any(isinstance(task, SealTask) for task in cluster.tasks.values()):
        cluster.do(next(iter(cluster.tasks)))
    (hanging,) = cluster.tasks
    cluster.wait(LATE_UNKNOWN_S + 1)
    (other,) = cluster.tasks.keys() - {hanging}
    cluster.do(other)
    assert cluster.actions == [Finish()]


def test_a_copy_that_is_lost_costs_nothing_while_the_other_goes_on():
    """Neither the late worker's death nor the copy's gives the rows back too early."""
    cluster = two_workers_at_the_end()
    cluster.do(0)
    cluster.wait(10.0)
    cluster.tasks.pop(1)
    cluster.tell(WorkerLost(1, "killed", session_died=True, row=3))
    assert len(cluster.tasks) == 1
    cluster.do(0)
    assert cluster.tasks[0] == SealTask(0)


def test_what_a_copy_did_on_the_way_is_kept_when_the_other_is_lost():
    """A copy that stopped early left a segment: only the rest is pending again."""
    cluster = Cluster(100, rows_per_shard=100)
    cluster.do(0)
    cluster.do(1)
    while cluster.tasks[0].num_rows < 8:
        cluster.do(0)
    long = cluster.tasks[0]
    while 1 in cluster.tasks:
        cluster.do(1)
    cluster.wait(1000.0)
    assert cluster.tasks[1].first_row == long.first_row
    cluster.do(1, end_row=long.first_row + 3)
    assert 1 not in cluster.tasks  # The rest is out already.
    cluster.tasks.pop(0)
    cluster.tell(WorkerLost(0, "node died", session_died=False))
    firsts = sorted(task.first_row for task in cluster.tasks.values() if isinstance(task, Lease))
    assert firsts[0] == long.first_row + 3


def test_a_suspect_is_never_given_to_two_workers():
    """A row that may kill its session is tried alone, one attempt at a time."""
    cluster = Cluster(3, rows_per_shard=3)
    cluster.do(1)
    victim = cluster.tasks.pop(0)
    cluster.tell(WorkerLost(0, "signal SIGSEGV", session_died=True, row=victim.first_row))
    while sum(isinstance(task, Lease) for task in cluster.tasks.values()) > 1:
        worker_id = next(w for w, t in cluster.tasks.items() if t.first_row != victim.first_row)
        cluster.do(worker_id)
    for _ in range(5):
        cluster.wait(1000.0)
    (task,) = cluster.tasks.values()
    assert task.first_row == victim.first_row
    assert cluster.scheduler.num_copies == 0


def test_a_worker_whose_node_goes_away_ends_its_task_and_gets_no_other():
    """It is replaced at once, and dismissed when it is done; nothing is held against its rows."""
    cluster = Cluster(1000)
    cluster.tell(WorkerLeaving(0))
    assert cluster.actions == [StartWorker(2)] or 2 in cluster.tasks
    assert cluster.scheduler.num_workers_alive == 2
    cluster.do(0)
    assert Dismiss(0) in cluster.actions
    assert 0 not in cluster.tasks


def test_nodes_that_go_away_are_never_why_a_job_is_given_up():
    """However many are preempted, with the task they had."""
    cluster = Cluster(1000, num_workers=1)
    for worker_id in range(200):
        cluster.tell(WorkerLeaving(worker_id))
        cluster.tasks.pop(worker_id)
        cluster.tell(WorkerLost(worker_id, "preempted", session_died=False))
        assert worker_id + 1 in cluster.tasks
        assert cluster.tasks[worker_id + 1].dead_reason is None


def test_an_idle_worker_whose_node_goes_away_is_dismissed_at_once():
    """There is nothing to wait for."""
    cluster = two_workers_at_the_end()
    cluster.do(0)
    cluster.tell(WorkerLeaving(0))
    assert cluster.actions == [Dismiss(0)]


def test_a_growing_cluster_gets_more_workers_and_a_shrinking_one_loses_none():
    """``workers.count: auto``: busy workers are left to end; they are not replaced."""
    cluster = Cluster(1000)
    cluster.tell(RoomChanged(4))
    assert len(cluster.tasks) == 4
    cluster.tell(RoomChanged(1))
    assert len(cluster.tasks) == 4
    cluster.tasks.pop(3)
    cluster.tell(WorkerLost(3, "node is gone", session_died=False))
    assert len(cluster.tasks) == 3
