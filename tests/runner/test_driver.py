"""The driver's loop on a scripted executor and a clock of the test's own."""

import pytest

from rdu_batch.errors import InputError, Interrupted, StoppedEarly
from rdu_batch.job.plan import Plan
from rdu_batch.report.progress import Silent
from rdu_batch.runner.driver import Driver
from rdu_batch.runner.executor import JobFailed, TaskDone, WorkerLost, WorkerReady
from rdu_batch.runner.leases import Lease, LeaseDone, SealDone
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.scheduler import Scheduler
from rdu_batch.runner.stops import StopRequest
from rdu_batch.runner.time_spent import TimeSpent

#: Of a lease, in a tenth of a second of the script's clock.
SPENT = TimeSpent(reading_s=0.01, prefill_s=0.02, decode_s=0.03, commit_s=0.04)
PLAN = Plan(1, "test", "sha256:0", {}, 1, 3, 30, 3, (), ())


class ScriptedExecutor:
    """Answers every start and task at once, unless its script says otherwise; time passes."""

    num_slots = 1

    def __init__(self, script=None):
        self.script = script
        self.events = []
        self.now_s = 0.0
        self.is_placing = True

    def start_worker(self, worker_id):
        if self.is_placing:
            self.events.append(WorkerReady(worker_id, 1.0))

    def assign(self, worker_id, task):
        if self.script is not None:
            self.events.append(self.script(self, worker_id, task))
        elif isinstance(task, Lease):
            totals = Totals(rows=task.num_rows, predictions=task.num_rows)
            rows = (task.first_row, task.end_row)
            answer = LeaseDone(task.lease_id, task.shard, *rows, task.covers_shard, totals, SPENT)
            self.events.append(TaskDone(worker_id, answer))
        else:
            self.events.append(TaskDone(worker_id, SealDone(task.shard, Totals())))

    def next_events(self, timeout_s):
        self.now_s += timeout_s
        events, self.events = self.events, []
        return events

    def dismiss(self, worker_id):
        self.dismissed = worker_id

    def stop(self):
        pass


def driver(executor, stop=None):
    return Driver(
        Scheduler(PLAN, 1, 3),
        executor,
        stop=stop or StopRequest(),
        progress=Silent(),
        start_timeout_s=60.0,
        rows_done_before=0,
        now_s=lambda: executor.now_s,
    )


def test_the_loop_ends_when_every_shard_is_committed():
    """Start, lease, seal, finish."""
    executor = ScriptedExecutor()
    driver(executor).run()
    assert executor.now_s < 60.0


def test_a_first_session_that_is_never_placed_ends_the_job():
    """After the start timeout, naming the workers block."""
    executor = ScriptedExecutor()
    executor.is_placing = False
    with pytest.raises(StoppedEarly, match="workers block"):
        driver(executor).run()
    assert 60.0 <= executor.now_s < 62.0


def test_a_replacement_that_is_never_placed_ends_the_job():
    """The clock starts again when the last worker is lost."""

    def lose(executor, worker_id, _task):
        executor.is_placing = False
        executor.now_s += 1000.0
        return WorkerLost(worker_id, "node died", session_died=False)

    executor = ScriptedExecutor(lose)
    with pytest.raises(StoppedEarly, match="workers block"):
        driver(executor).run()
    assert 1060.0 <= executor.now_s < 1063.0


def test_an_error_that_ends_the_job_is_raised_as_it_is():
    """A changed input found by a worker."""
    executor = ScriptedExecutor(lambda _e, worker_id, _t: JobFailed(worker_id, InputError("gone")))
    with pytest.raises(InputError, match="gone"):
        driver(executor).run()


def test_a_stop_request_ends_the_loop():
    """The flag is looked at before each wait."""
    stop = StopRequest()

    def ask(_executor, worker_id, task):
        stop.reason = "SIGTERM"
        rows = (task.first_row, task.end_row)
        answer = LeaseDone(task.lease_id, task.shard, *rows, False, Totals(), SPENT)
        return TaskDone(worker_id, answer)

    with pytest.raises(Interrupted, match="SIGTERM"):
        driver(ScriptedExecutor(ask), stop).run()


def test_the_account_of_the_workers_time_adds_up_to_their_lives():
    """One worker, from the wish for it to the end; what its tasks spent counts by kind."""
    executor = ScriptedExecutor()
    one = driver(executor)
    one.run()
    told = one.account().seconds.to_json()
    assert told.pop("total_s") == pytest.approx(executor.now_s)
    assert sum(told.values()) == pytest.approx(executor.now_s)
    num_leases = 3  # Of one row each: a first one, then shares of the tail.
    assert told["decode_s"] == pytest.approx(num_leases * SPENT.decode_s)
    assert (told["session_start_s"], told["wasted_s"]) == (0.2, 0.0)


def test_an_interrupted_lease_is_wasted_time():
    """The worker had it for a second when the stop came."""
    stop = StopRequest()

    def lose_then_stop(executor, worker_id, task):
        executor.now_s += 1.0
        stop.reason = "SIGTERM"
        return WorkerReady(worker_id, 1.0)  # Says nothing of its task.

    one = driver(ScriptedExecutor(lose_then_stop), stop)
    with pytest.raises(Interrupted):
        one.run()
    told = one.account().seconds.to_json()
    assert told["wasted_s"] == pytest.approx(1.0)
    assert told["total_s"] == pytest.approx(1.2)
