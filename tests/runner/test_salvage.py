"""What of a dead session's spool is kept: whole outcomes that fit, or nothing."""

import pytest

from rdu_batch.runner.leases import Lease
from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.salvage import salvage
from rdu_batch.runner.segments import list_segments, read_segment
from rdu_batch.storage.store import open_store

LEASE = Lease(7, 2, 10, 20, covers_shard=False)
OUTCOMES = [
    Outcome(True, "eos", b'{"row": [0, 1], "prediction": "a\\u2028b"}\n', 5, 3),
    Outcome(False, "bad_json", b'{"row": [0, 2]}\n'),
    Outcome(True, "length", b'{"row": [0, 3],\r"label": 1}\n', 2, 9),
]


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def spool(tmp_path):
    path = tmp_path / "outcomes-7"
    path.write_bytes(b"".join(outcome.to_bytes() for outcome in OUTCOMES))
    return path


def test_finished_rows_become_a_segment_with_their_totals(store, spool):
    """Under a name that every reader of segments trusts."""
    end_row, totals = salvage(store, LEASE, 3, spool, 13)
    assert (end_row, totals.rows, totals.dead, totals.generated_tokens) == (13, 3, 1, 12)
    (segment,) = list_segments(store)
    assert (segment.shard, segment.first_row, segment.end_row) == (2, 10, 13)
    assert (segment.epoch, segment.lease) == (3, 7)
    assert read_segment(store, segment) == OUTCOMES


@pytest.mark.parametrize("cut", [1, 20, len(OUTCOMES[2].to_bytes()) - 1])
def test_a_line_that_was_not_written_to_its_end_is_no_outcome(store, spool, cut):
    """A process can die within a write."""
    content = spool.read_bytes()
    spool.write_bytes(content[: len(content) - cut])
    end_row, totals = salvage(store, LEASE, 3, spool, None)
    assert (end_row, totals.rows) == (12, 2)
    assert read_segment(store, list_segments(store)[0]) == OUTCOMES[:2]


@pytest.mark.parametrize("row", [10, 12, 14])
def test_a_spool_that_does_not_fit_the_row_in_progress_is_not_kept(store, spool, row):
    """There must be one outcome for each row before it, no more and no less."""
    assert salvage(store, LEASE, 3, spool, row)[0] == 10
    assert list_segments(store) == []


@pytest.mark.parametrize("damage", [b"X eos {}\n", b"\n", b"P x 3 eos {}\n", b"P 1 2\n"])
def test_a_spool_with_anything_else_in_it_is_not_kept(store, spool, damage):
    """Then nothing in it is to be trusted."""
    spool.write_bytes(damage + spool.read_bytes())
    assert salvage(store, LEASE, 3, spool, None)[0] == 10
    assert list_segments(store) == []


def test_more_outcomes_than_rows_are_not_kept(store, spool):
    """A spool of another lease, say."""
    lease = Lease(7, 2, 10, 12, covers_shard=False)
    assert salvage(store, lease, 3, spool, None)[0] == 10


def test_a_session_that_died_before_it_wrote_anything_leaves_nothing(store, tmp_path, spool):
    """No spool, or an empty one: no segment."""
    assert salvage(store, LEASE, 3, tmp_path / "missing", 10)[0] == 10
    spool.write_bytes(b"")
    assert salvage(store, LEASE, 3, spool, 10)[0] == 10
    assert list_segments(store) == []
