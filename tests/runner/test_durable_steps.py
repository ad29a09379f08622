"""Segments, sealing and commit records on a local store: what counts, what is absent, who wins."""

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.errors import OutputMismatch
from rdu_batch.job.plan import Plan
from rdu_batch.runner.commits import CommitRecord, committed_shards, publish
from rdu_batch.runner.outcome_spool import OutcomeSpool
from rdu_batch.runner.outcomes import Outcome, Totals, published_lines
from rdu_batch.runner.run_layout import SegmentName
from rdu_batch.runner.sealing import seal_shard
from rdu_batch.runner.segments import (
    list_segments,
    merge_segments,
    missing_ranges,
    read_segment,
)
from rdu_batch.storage.store import open_store

DECIDES = {"output": {"format": "jsonl"}}


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "out"))


@pytest.fixture
def plan():
    return Plan(3, "test", "sha256:0", DECIDES, 1, 8, 80, 4, (), ())


def predicted(text: bytes) -> Outcome:
    return Outcome(True, "eos", b'{"row":[0,1],"prediction":"' + text + b'"}\n', 3, 5)


def dead(text: bytes) -> Outcome:
    return Outcome(False, "not_json", b'{"row":[0,1],"detail":"' + text + b'"}\n')


def put(store, outcomes, *, first_row=0, lease=0, epoch=1, shard=0):
    """Store a segment as a worker does."""
    content = b"".join(outcome.to_bytes() for outcome in outcomes)
    digest = hashlib.sha256(content).hexdigest()
    name = SegmentName(shard, first_row, first_row + len(outcomes), epoch, lease, digest)
    store.put_whole(name.name, content)
    return name


LABELS = st.from_regex(r"[a-z_]+", fullmatch=True)
LINES = st.binary().map(lambda content: content.replace(b"\n", b" ") + b"\n")
COUNTS = st.integers(0, 10**9)
DIGESTS = st.binary(min_size=16, max_size=16).map(bytes.hex)


@given(
    st.builds(Outcome, st.just(True), LABELS, LINES, COUNTS, COUNTS, DIGESTS)
    | st.builds(lambda label, line: Outcome(False, label, line), LABELS, LINES)
)
def test_an_outcome_survives_its_segment_line(outcome):
    """Any bytes but a newline may stand in a line."""
    segment_line = outcome.to_bytes()
    assert Outcome.from_bytes(segment_line) == outcome
    digest = outcome.row_digest.encode()
    published = (
        ([outcome.line], [], [digest]) if outcome.is_prediction else ([], [outcome.line], [])
    )
    assert published_lines([segment_line]) == published


def test_a_carriage_return_inside_a_line_does_not_cut_it(store):
    """JSON allows one as white space between values, so a carried field may hold it."""
    outcomes = [predicted(b"a\rb"), dead(b"c\r")]
    assert read_segment(store, put(store, outcomes)) == outcomes


def test_a_segment_whose_bytes_do_not_match_its_name_is_absent(store):
    """Torn, foreign or changed: it does not count."""
    name = put(store, [predicted(b"one"), predicted(b"two")])
    content = store.read(name.name)
    for damaged in (content[:-3], content.replace(b"two", b"six"), b""):
        store.delete(name.name)
        store.put_whole(name.name, damaged)
        assert read_segment(store, name) is None
        assert list(merge_segments(store, [name], 0, 2)) == [None, None]


def test_segment_names_are_read_back_and_strangers_are_passed_over(store):
    """A resume lists them; anything else under the folder is not a segment."""
    name = put(store, [dead(b"x")], first_row=5, lease=7, epoch=2, shard=1)
    store.put_whole("_run/segments/00001/notes.txt", b"not ours")
    assert list_segments(store) == [name]


def test_where_segments_overlap_a_prediction_wins_then_the_lowest_name(store):
    """Every reader of the same segments settles on the same outcomes."""
    first = put(store, [dead(b"0"), dead(b"1"), predicted(b"2")], lease=1)
    second = put(store, [predicted(b"one"), predicted(b"two")], first_row=1, lease=2)
    merged = list(merge_segments(store, [second, first], 0, 4))
    assert merged == [dead(b"0"), predicted(b"one"), predicted(b"2"), None]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=8))
def test_missing_ranges_are_the_complement_of_the_segments(pairs):
    """Against a set of rows."""
    segments = [
        SegmentName(0, min(pair), max(pair), 1, n, "0" * 64) for n, pair in enumerate(pairs)
    ]
    covered = {row for s in segments for row in range(s.first_row, s.end_row)}
    missing = missing_ranges(segments, 3, 17)
    assert [row for first, end in missing for row in range(first, end)] == [
        row for row in range(3, 17) if row not in covered
    ]
    assert all(first < end for first, end in missing)


def test_a_shard_with_a_row_that_has_no_outcome_is_not_sealed(store, plan):
    """The missing rows are named and nothing is committed."""
    outcomes = [predicted(b"0"), None, None, dead(b"3")]
    assert seal_shard(store, plan, plan.shard(0), outcomes) == [(1, 3)]
    assert committed_shards(store) == []
    assert store.list_names("", recursive=True) == []


def test_sealing_commits_and_publishes_predictions_and_dead_letters(store, plan):
    """The record's totals and files are what was sealed."""
    outcomes = [predicted(b"0"), dead(b"1"), predicted(b"2"), predicted(b"3")]
    record = seal_shard(store, plan, plan.shard(1), outcomes)
    assert (record.totals.predictions, record.totals.dead) == (3, 1)
    assert (record.totals.prompt_tokens, record.totals.generated_tokens) == (9, 15)
    part = store.read("part-00001-of-00002.jsonl")
    assert part == b"".join(o.line for o in outcomes if o.is_prediction)
    assert store.read("dead-00001-of-00002.jsonl") == dead(b"1").line
    assert record.part.sha256 == hashlib.sha256(part).hexdigest()


def test_the_first_commit_of_a_shard_stands(store, plan):
    """A slower attempt with other outcomes changes neither record nor published bytes."""
    first = seal_shard(store, plan, plan.shard(0), [predicted(b"first")] * 4)
    second = seal_shard(store, plan, plan.shard(0), [predicted(b"second")] * 4)
    assert second == first
    assert b"second" not in store.read("part-00000-of-00002.jsonl")


def test_publishing_again_restores_a_lost_part(store, plan):
    """What a commit record names can be published at any time, any number of times."""
    record = seal_shard(store, plan, plan.shard(0), [predicted(b"x")] * 4)
    before = store.read("part-00000-of-00002.jsonl")
    store.delete("part-00000-of-00002.jsonl")
    publish(store, record, plan)
    publish(store, record, plan)
    assert store.read("part-00000-of-00002.jsonl") == before


def test_a_commit_record_survives_its_bytes_and_refuses_another_version(store, plan):
    """An unfinished output of another format is refused, not misread."""
    record = seal_shard(store, plan, plan.shard(0), [dead(b"x")] * 4)
    content = record.to_bytes()
    assert CommitRecord.from_bytes(content) == record
    with pytest.raises(OutputMismatch, match="format version 9"):
        CommitRecord.from_bytes(content.replace(b'"version": 2', b'"version": 9'))


def test_totals_add_up_in_any_order():
    """Counts of parts equal counts of the whole."""
    outcomes = [predicted(b"a"), dead(b"b"), predicted(b"c")]
    whole, left, right = Totals(), Totals(), Totals()
    for outcome in outcomes:
        whole.count(outcome)
    left.count(outcomes[2])
    right.count(outcomes[0])
    right.count(outcomes[1])
    left.add(right)
    assert left.to_json() == whole.to_json()
    assert whole.rows == whole.predictions + whole.dead == 3


FULL_DISK = """
import resource, sys
from pathlib import Path
from rdu_batch.errors import StoreError
from rdu_batch.runner.outcome_spool import OutcomeSpool
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
spool = OutcomeSpool(Path(sys.argv[1]))
try:
    while True:
        spool.write(b"x" * 299 + b"\\n")
except StoreError as error:
    print(spool.num_rows, error)
"""


def test_a_full_disk_is_an_error_before_the_line_that_does_not_fit(tmp_path):
    """Space is reserved first: the lines before are there, the process lives and says why."""
    path = tmp_path / "spool"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    num_rows = (1 << 20) // 300
    assert said.startswith(f"{num_rows} the scratch file {path} cannot be written: File too large.")
    assert path.read_bytes().rstrip(b"\0") == (b"x" * 299 + b"\n") * num_rows


def test_a_spool_is_cut_to_its_lines_and_knows_their_digest(tmp_path):
    """Reserved space is no part of it, however long a line is."""
    lines = [b"a\n", b"b" * (3 << 20) + b"\n", b"c\n"]
    with OutcomeSpool(tmp_path / "spool") as spool:
        for line in lines:
            spool.write(line)
    content = b"".join(lines)
    assert spool.path.read_bytes() == content
    assert spool.sha256 == hashlib.sha256(content).hexdigest()
    assert (spool.num_rows, spool.num_bytes) == (3, len(content))


KILLED = """
import os, signal, sys
from pathlib import Path
from rdu_batch.runner.outcome_spool import OutcomeSpool
spool = OutcomeSpool(Path(sys.argv[1]))
spool.write(b"P 1 1 length {}\\n")
spool.write(b"D not_json {}\\n")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_lines_outlive_the_process_that_wrote_them(tmp_path):
    """Nobody closed the file: its lines are there, and what follows them is no line."""
    path = tmp_path / "spool"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    with path.open("rb") as lines:
        found = [line for line in lines if line.endswith(b"\n")]
    assert found == [b"P 1 1 length {}\n", b"D not_json {}\n"]
