"""The driver's loop while it does not know whether another driver has taken over."""

import pytest

from rdu_batch.errors import Interrupted, OutputOwned
from rdu_batch.job.plan import Plan
from rdu_batch.report.progress import Silent
from rdu_batch.runner.driver import Driver
from rdu_batch.runner.executor import WorkerReady
from rdu_batch.runner.scheduler import Scheduler
from rdu_batch.runner.stops import StopRequest

PLAN = Plan(1, "test", "sha256:0", {}, 1, 3, 30, 3, (), ())


class ReadyExecutor:
    """Workers are ready at once; what is assigned is kept."""

    num_slots = 1

    def __init__(self):
        self.events = []
        self.assigned = []

    def start_worker(self, worker_id):
        self.events.append(WorkerReady(worker_id, 1.0))

    def assign(self, worker_id, task):
        self.assigned.append(task)

    def next_events(self, timeout_s):
        events, self.events = self.events, []
        return events


def run(executor, owns, stop=None):
    Driver(
        Scheduler(PLAN, 1, 3),
        executor,
        stop=stop or StopRequest(),
        progress=Silent(),
        start_timeout_s=60.0,
        rows_done_before=0,
        owns=owns,
    ).run()


def test_nothing_is_handed_out_by_a_driver_that_learns_that_it_is_fenced():
    """It waits while it does not know, then ends."""
    executor, answers = ReadyExecutor(), [False, False, False]

    def owns():
        if not answers:
            raise OutputOwned("fenced")
        return answers.pop()

    with pytest.raises(OutputOwned):
        run(executor, owns)
    assert executor.assigned == []


def test_a_driver_that_still_owns_its_output_goes_on_where_it_waited():
    """The events of before are not lost."""
    executor, stop, answers = ReadyExecutor(), StopRequest(), [True, False, False]

    def owns():
        if executor.assigned:
            stop.reason = "the test"
        return answers.pop() if answers else True

    with pytest.raises(Interrupted):
        run(executor, owns, stop)
    assert len(executor.assigned) == 1


def test_a_driver_in_doubt_still_hears_a_stop():
    """Ctrl-C while the store does not answer."""
    executor, stop = ReadyExecutor(), StopRequest()

    def owns():
        stop.reason = "SIGINT"
        return False

    with pytest.raises(Interrupted, match="SIGINT"):
        run(executor, owns, stop)
    assert executor.assigned == []
