"""A heartbeat is judged by its movement alone; a driver knows when it may have been taken over."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.errors import OutputOwned, StoreError, UsageError
from rdu_batch.runner.epochs import read_owner, take_epoch
from rdu_batch.runner.heartbeat import (
    HEARTBEAT_S,
    Heartbeat,
    Look,
    Verdict,
    clock_s,
    heartbeat_s_of,
    judge,
    read_count,
    takeover_s,
)
from rdu_batch.runner.run_layout import driver_epoch
from rdu_batch.storage.local_store import LocalStore
from rdu_batch.storage.store import open_store

INTERVALS_S = st.floats(0.05, 100.0)


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"))


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


@given(INTERVALS_S, st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 3)), max_size=20))
def test_only_a_change_is_movement_and_only_time_looked_at_is_standing(heartbeat_s, steps):
    """Against the definition, for any looks at any times."""
    looks, at_s = [], 0.0
    for gap_s, count in steps:
        at_s += gap_s
        looks.append(Look(at_s, count))
    seen_s = sum(min(gap_s, heartbeat_s) for gap_s, _ in steps[1:])
    verdict = judge(looks, heartbeat_s)
    if len({count for _, count in steps}) > 1:
        assert verdict is Verdict.MOVES
    elif seen_s > takeover_s(heartbeat_s) * 1.001:
        assert verdict is Verdict.STANDS
    elif seen_s < takeover_s(heartbeat_s) * 0.999:
        assert verdict is Verdict.UNDECIDED


@given(INTERVALS_S, st.floats(0, 1), st.lists(st.floats(0.1, 2.0), min_size=30, max_size=30))
def test_a_driver_that_beats_up_to_twice_too_late_is_never_taken_for_dead(
    heartbeat_s, offset, delays
):
    """Looks every quarter of the interval until the verdict; it is never that it stands."""
    beats_s, at_s = [], offset * heartbeat_s
    for delay in delays:
        beats_s.append(at_s)
        at_s += delay * heartbeat_s
    looks = []
    while judge(looks, heartbeat_s) is Verdict.UNDECIDED:
        now_s = len(looks) * heartbeat_s / 4
        assert now_s < at_s
        looks.append(Look(now_s, sum(beat_s <= now_s for beat_s in beats_s)))
    assert judge(looks, heartbeat_s) is Verdict.MOVES


def test_an_observer_that_was_paused_itself_has_proof_of_nothing():
    """Its clock ran on, but it did not look; the driver may have been paused with it."""
    assert judge([Look(0.0, 7), Look(1e6, 7)], 5.0) is Verdict.UNDECIDED
    assert judge([Look(0.0, 7), Look(1e6, 8)], 5.0) is Verdict.MOVES


def test_a_first_heartbeat_is_movement():
    """An epoch is taken a moment before its heartbeat begins."""
    assert judge([Look(0.0, None), Look(0.1, 1)], 5.0) is Verdict.MOVES


def test_the_counter_grows_from_the_moment_the_epoch_is_entered(store):
    """Without waiting for the first interval."""
    with Heartbeat(store, take_epoch(store, 1, 3600.0)) as heartbeat:
        assert read_count(store, 1) == 1
        heartbeat.turn()
        assert read_count(store, 1) == 2
        assert heartbeat.owns()


def test_a_heartbeat_of_a_later_epoch_stops_an_earlier_one(store):
    """It raises, names the later driver, and writes nothing any more."""
    with Heartbeat(store, take_epoch(store, 1, 3600.0)) as heartbeat:
        take_epoch(store, 2, 3600.0)
        with pytest.raises(OutputOwned, match=r"fenced: epoch 2 \(host .*, pid \d+\)"):
            heartbeat.turn()
        with pytest.raises(OutputOwned):
            heartbeat.confirm()
        assert read_count(store, 1) == 1


def test_the_thread_finds_a_later_epoch_by_itself(store):
    """owns() then raises what it found, without a look of its own."""
    with Heartbeat(store, take_epoch(store, 1, 0.01)) as heartbeat:
        take_epoch(store, 2, 3600.0)
        deadline_s = time.monotonic() + 60
        while not heartbeat.is_lost:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        with pytest.raises(OutputOwned, match="epoch 2"):
            heartbeat.owns()


def test_an_output_that_was_emptied_and_begun_anew_fences_the_old_run(store):
    """The new run's epoch has the same number; its token tells the two apart."""
    with Heartbeat(store, take_epoch(store, 1, 3600.0)) as heartbeat:
        store.delete(driver_epoch(1))
        with pytest.raises(OutputOwned, match="is gone: the output was emptied"):
            heartbeat.confirm()
        assert take_epoch(store, 1, 3600.0) is not None
        with pytest.raises(OutputOwned, match="another run, epoch 1"):
            heartbeat.confirm()


class FailingStore(LocalStore):
    """A folder that takes no heartbeat while it is told to fail."""

    fails = False
    num_failures = 0

    def put_whole(self, name, content):
        if self.fails:
            self.num_failures += 1
            raise StoreError("no answer")
        super().put_whole(name, content)


def test_a_driver_whose_heartbeat_is_not_written_is_unsure_after_the_takeover_time(tmp_path):
    """Until a beat and a look succeed again."""
    store, clock = FailingStore(str(tmp_path)), Clock()
    heartbeat = Heartbeat(store, take_epoch(store, 1, 10.0), now_s=clock)
    heartbeat.turn()
    store.fails = True
    clock.s = takeover_s(10.0)
    assert heartbeat.owns()
    with pytest.raises(StoreError):
        heartbeat.turn()
    clock.s += 0.1
    assert not heartbeat.owns()
    store.fails = False
    heartbeat.turn()
    assert heartbeat.owns()


def test_the_thread_tries_again_after_a_failure_of_the_store(tmp_path):
    """One outage does not end the heartbeat."""
    store = FailingStore(str(tmp_path))
    with Heartbeat(store, take_epoch(store, 1, 0.01)):
        store.fails = True
        deadline_s = time.monotonic() + 60
        while store.num_failures < 2:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        store.fails = False
        count = read_count(store, 1)
        while read_count(store, 1) == count:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def test_an_epoch_is_taken_by_one_driver_only(store):
    """And its object tells who, on which machine, and how often it beats."""
    owner = take_epoch(store, 1, 2.5)
    assert take_epoch(store, 1, 2.5) is None
    assert read_owner(store, 1) == owner
    assert (owner.epoch, owner.heartbeat_s) == (1, 2.5)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"pid": "x", "heartbeat_s": -1, "process": 3}'])
def test_a_damaged_epoch_object_still_counts_as_taken(store, content):
    """Whatever it does not say is left empty."""
    store.put_whole(driver_epoch(1), content)
    owner = read_owner(store, 1)
    assert (owner.pid, owner.heartbeat_s, owner.process) == (0, None, None)


def test_the_interval_comes_from_the_environment_or_is_refused():
    """Exit 2 for what is no time."""
    assert heartbeat_s_of({}) == HEARTBEAT_S
    assert heartbeat_s_of({"RDU_BATCH_HEARTBEAT_S": "0.5"}) == 0.5
    for text in ("", "soon", "0", "-1", "inf", "nan"):
        with pytest.raises(UsageError, match="RDU_BATCH_HEARTBEAT_S"):
            heartbeat_s_of({"RDU_BATCH_HEARTBEAT_S": text})


def test_the_drivers_own_clock_never_runs_backward():
    """It is one that also runs while the machine sleeps."""
    assert clock_s() <= clock_s()
