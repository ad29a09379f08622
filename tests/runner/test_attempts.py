"""Solo tries as objects: what a resume makes of their names."""

import json

import pytest

from rdu_batch.dataset.planning import plan_of_output
from rdu_batch.job.loading import load_spec
from rdu_batch.runner.attempts import begin_attempt, is_solo_try, note_strike, read_suspects
from rdu_batch.runner.identity import identify_job
from rdu_batch.runner.leases import Lease
from rdu_batch.runner.resume import look_back
from rdu_batch.runner.run_layout import SegmentName
from rdu_batch.runner.shard_progress import RowRange, with_suspects
from rdu_batch.storage.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def suspect(row, *, lease_id=0, shard=0):
    return Lease(lease_id, shard, row, row + 1, covers_shard=False, is_suspect=True)


def test_a_try_that_only_began_makes_a_suspect_and_no_strike(store):
    """Nobody saw how it ended: a preempted driver is not held against a row, however often."""
    for epoch in range(1, 10):
        begin_attempt(store, suspect(5), epoch)
    assert read_suspects(store, set()) == {0: [RowRange(5, 6, 0, "", is_suspect=True)]}


def test_each_death_that_was_seen_is_a_strike_and_the_last_one_names_the_reason(store):
    """Over several epochs, whose lease numbers begin anew."""
    for epoch, lease_id, timed_out in ((1, 7, False), (2, 0, False), (2, 3, True)):
        begin_attempt(store, suspect(5, lease_id=lease_id), epoch)
        note_strike(store, suspect(5, lease_id=lease_id), epoch, timed_out=timed_out)
    assert read_suspects(store, set()) == {0: [RowRange(5, 6, 3, "row_timeout", is_suspect=True)]}


def test_noting_a_death_twice_is_one_strike(store):
    """A store may do a request twice."""
    for _ in range(2):
        note_strike(store, suspect(5), 1, timed_out=False)
    ((found,),) = read_suspects(store, set()).values()
    assert found.strikes == 1


def test_suspects_come_by_shard_in_order_without_committed_shards_and_strangers(store):
    """What no name of a try says is passed over."""
    for shard, row in ((1, 15), (0, 3), (1, 12), (2, 29)):
        begin_attempt(store, suspect(row, shard=shard), 1)
    store.put_whole("_run/attempts/00001/notes.txt", b"x")
    store.put_whole("_run/attempts/00001/000000000011-e000001-l000000.forgiven.json", b"x")
    found = read_suspects(store, {2})
    assert {shard: [rows.first_row for rows in ranges] for shard, ranges in found.items()} == {
        0: [3],
        1: [12, 15],
    }


def test_a_lease_that_gives_a_row_up_is_no_try():
    """Its dead letter is written without running it."""
    lease = Lease(0, 0, 3, 4, covers_shard=False, dead_reason="session_killed", is_suspect=True)
    assert not is_solo_try(lease)
    assert is_solo_try(suspect(3))
    assert not is_solo_try(Lease(0, 0, 3, 4, covers_shard=False))


@pytest.mark.parametrize(
    ("ranges", "suspects", "wanted"),
    [
        ([(0, 5)], [], [(0, 5)]),
        ([(0, 5)], [0], [(0, 1), (1, 5)]),
        ([(0, 5)], [4], [(0, 4), (4, 5)]),
        ([(0, 5)], [1, 2], [(0, 1), (1, 2), (2, 3), (3, 5)]),
        ([(0, 5), (8, 9)], [8], [(0, 5), (8, 9)]),
        ([(0, 5), (8, 9)], [6, 7], [(0, 5), (8, 9)]),
        ([(3, 4)], [3], [(3, 4)]),
    ],
)
def test_each_pending_suspect_stands_alone(ranges, suspects, wanted):
    """Rows that are durable are nobody's suspects."""
    rows = [RowRange(row, row + 1, is_suspect=True) for row in suspects]
    found = with_suspects(ranges, rows)
    assert [(part.first_row, part.end_row) for part in found] == wanted
    alone = {part.first_row for part in found if part.is_suspect}
    assert alone == {row for row in suspects if any(a <= row < b for a, b in ranges)}


def test_looking_back_sets_suspects_apart_in_shards_with_and_without_segments(job, make_lines):
    """Only the names count, and the rows that are pending stay as many."""
    job.write(make_lines(20), rows_per_shard=10)
    spec = load_spec(job.path.read_text(), source=str(job.path))
    store = open_store(spec.output.url)
    plan = plan_of_output(store, spec, identify_job(spec).artifact_digest)
    store.put_whole(SegmentName(0, 0, 6, 1, 0, "0" * 64).name, b"")
    for shard, row in ((0, 2), (0, 7), (1, 10)):
        note_strike(store, suspect(row, shard=shard), 1, timed_out=False)
    left = look_back(store, plan)
    found = {
        shard: [(rows.first_row, rows.end_row, rows.strikes) for rows in ranges]
        for shard, ranges in left.begun.items()
    }
    assert found == {0: [(6, 7, 0), (7, 8, 1), (8, 10, 0)], 1: [(10, 11, 1), (11, 20, 0)]}
    assert left.num_pending_rows == 14


def test_a_resume_gives_up_a_row_that_has_all_its_strikes(job, make_lines, read_last_json):
    """Its deaths were all seen, by epochs that were killed before its dead letter was durable."""
    lines = make_lines(4)
    job.write(lines, limits={"max_dead_rows": 1, "attempts_per_row": 2})
    store = open_store(str(job.output))
    for lease_id in range(2):
        note_strike(store, suspect(2, lease_id=lease_id), 1, timed_out=False)
    done = job.run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    assert read_last_json(done)["dead_reasons"] == {"session_killed": 1}
    (dead,) = job.output.glob("dead-*")
    assert json.loads(dead.read_text())["row"] == [0, 3]
