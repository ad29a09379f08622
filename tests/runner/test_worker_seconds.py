"""The account of the workers' time: every second in one class, whatever happens in what order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.runner.time_spent import TaskClock, TimeSpent
from rdu_batch.runner.worker_seconds import WorkerLedger

SPENT = TimeSpent(reading_s=1.0, prefill_s=2.0, decode_s=4.0, commit_s=0.5)


def classes_of(ledger):
    """The classes that have something, whole seconds and halves."""
    told = ledger.seconds.to_json()
    return {name: seconds for name, seconds in told.items() if seconds and name != "total_s"}


def test_laps_of_a_task_add_up_to_its_time():
    """Each lap counts as the kind of work that ended with it."""
    moments_s = iter([10.0, 11.0, 13.0, 17.0, 17.5, 18.0])
    clock = TaskClock(lambda: next(moments_s))
    clock.has_read()
    clock.has_prefilled()
    clock.has_decoded()
    clock.has_read()
    clock.has_committed()
    assert clock.spent == TimeSpent(reading_s=1.5, prefill_s=2.0, decode_s=4.0, commit_s=0.5)
    assert (clock.spent.rows_s, clock.spent.total_s) == (7.5, 8.0)


def test_a_worker_that_starts_works_and_waits():
    """What a task took beyond its own account is waiting: its messages were on their way."""
    ledger = WorkerLedger()
    ledger.start(0, 0.0)
    ledger.ready(0, 5.0)
    ledger.assign(0, 6.0, "a task")
    ledger.answer(0, SPENT, 16.0, counts=True)
    ledger.close(20.0)
    assert classes_of(ledger) == {
        "session_start_s": 5.0,
        "reading_s": 1.0,
        "prefill_s": 2.0,
        "decode_s": 4.0,
        "commit_s": 0.5,
        "waiting_s": 1.0 + 2.5 + 4.0,
    }
    assert ledger.seconds.to_json()["total_s"] == 20.0


def test_a_late_copy_is_wasted_whole():
    """Another worker's answer came first."""
    ledger = WorkerLedger()
    ledger.start(0, 0.0)
    ledger.ready(0, 1.0)
    ledger.assign(0, 1.0, "a task")
    ledger.answer(0, SPENT, 11.0, counts=False)
    ledger.close(11.0)
    assert classes_of(ledger) == {"session_start_s": 1.0, "wasted_s": 10.0}


def test_of_a_lost_worker_the_kept_rows_count():
    """The rest of its task is wasted; so is a start that failed, but not an idle worker's time."""
    ledger = WorkerLedger()
    for worker_id in range(3):
        ledger.start(worker_id, 0.0)
    ledger.ready(0, 1.0)
    ledger.ready(1, 1.0)
    ledger.assign(0, 1.0, "a task")
    ledger.lose(0, TimeSpent(decode_s=3.0), 9.0)
    ledger.lose(1, TimeSpent(), 9.0)
    ledger.lose(2, TimeSpent(), 9.0)
    assert classes_of(ledger) == {
        "session_start_s": 2.0,
        "decode_s": 3.0,
        "wasted_s": 5.0 + 9.0,
        "waiting_s": 8.0,
    }


def test_the_end_stops_what_is_under_way():
    """A task that never answered is wasted; a session that was still opening is a start."""
    ledger = WorkerLedger()
    ledger.start(0, 0.0)
    ledger.start(1, 0.0)
    ledger.ready(0, 1.0)
    ledger.assign(0, 2.0, "a task")
    ledger.close(10.0)
    assert classes_of(ledger) == {"session_start_s": 11.0, "waiting_s": 1.0, "wasted_s": 8.0}


def test_an_account_longer_than_the_task_keeps_its_shares():
    """Clocks of two machines differ; the total is what the driver saw."""
    ledger = WorkerLedger()
    ledger.start(0, 0.0)
    ledger.ready(0, 0.0)
    ledger.assign(0, 0.0, "a task")
    ledger.answer(0, SPENT, 3.75, counts=True)
    ledger.close(3.75)
    assert classes_of(ledger) == {
        "reading_s": 0.5,
        "prefill_s": 1.0,
        "decode_s": 2.0,
        "commit_s": 0.25,
    }


@given(data=st.data())
def test_whatever_happens_the_classes_add_up_to_the_workers_lives(data):
    """Against the lives themselves, kept apart from the ledger."""
    ledger, now_s = WorkerLedger(), 0.0
    born, state, lived_s = {}, {}, 0.0
    for worker_id in range(data.draw(st.integers(1, 25), label="events")):
        now_s += data.draw(st.floats(0, 100))
        if not state or data.draw(st.booleans(), label="start"):
            ledger.start(worker_id, now_s)
            born[worker_id], state[worker_id] = now_s, "starting"
            continue
        one = data.draw(st.sampled_from(sorted(state)))
        spent = TimeSpent(*(data.draw(st.floats(0, 50)) for _ in range(4)))
        if data.draw(st.booleans(), label="lost"):
            ledger.lose(one, spent, now_s)
            lived_s += now_s - born[one]
            del state[one]
        elif state[one] == "starting":
            ledger.ready(one, now_s)
            state[one] = "idle"
        elif state[one] == "idle":
            ledger.assign(one, now_s, "a task")
            state[one] = "busy"
        else:
            ledger.answer(one, spent, now_s, counts=data.draw(st.booleans()))
            state[one] = "idle"
    now_s += 1.0
    ledger.close(now_s)
    lived_s += sum(now_s - born[one] for one in state)
    told = ledger.seconds.to_json()
    assert told.pop("total_s") == pytest.approx(lived_s, abs=0.01)
    assert sum(told.values()) == pytest.approx(lived_s, abs=0.01)
    assert min(told.values()) >= 0.0
