"""What outlives a real session process: its finished rows, its tries, and what is known of it."""

import json
import os
import signal

import pytest

from rdu_batch.dataset.planning import plan_of_output
from rdu_batch.errors import OutputOwned, SessionBroken, StoreError
from rdu_batch.job.loading import load_spec
from rdu_batch.runner.identity import identify_job
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import Lease, LeaseDone, SealTask
from rdu_batch.runner.run_layout import driver_epoch
from rdu_batch.runner.segments import list_segments, read_segment
from rdu_batch.runner.session_keeper import Loss, SessionKeeper
from rdu_batch.storage.local_store import LocalStore
from rdu_batch.storage.store import open_store

TEXTS = ["first", "second", "[[fake:crash]]", "fourth", "[[fake:eat-memory]]", "[[fake:hang]]"]
LIMIT_BYTES = 400_000_000


def make_context(job, **limits):
    lines = [json.dumps({"text": text}).encode() for text in TEXTS]
    job.write(lines, rows_per_shard=100, limits={"row_timeout_s": 2.0, **limits})
    spec = load_spec(job.path.read_text(), source=str(job.path))
    store = open_store(spec.output.url)
    plan = plan_of_output(store, spec, identify_job(spec).artifact_digest)
    return JobContext(spec, plan.digest, 1)


@pytest.fixture
def keeper(job):
    keeper = SessionKeeper(make_context(job, session_memory_bytes=LIMIT_BYTES), worker_id=4)
    keeper.wait_ready()
    yield keeper
    keeper.close()


def lease(first_row, end_row, **options):
    return Lease(9, 0, first_row, end_row, covers_shard=False, **options)


def deaths_of(job):
    return {path.name: json.loads(path.read_text()) for path in job.output.glob("_run/forensics/*")}


def attempts_of(job):
    return sorted(path.name for path in job.output.glob("_run/attempts/*/*"))


def test_the_rows_before_a_death_are_durable_and_the_death_is_described(keeper, job):
    """Two rows, then one that segfaults: nothing of it but where it stands is kept."""
    loss = keeper.run(lease(0, 6))
    assert isinstance(loss, Loss)
    assert (loss.row, loss.timed_out) == (2, False)
    assert (loss.done.first_row, loss.done.end_row, loss.done.totals.predictions) == (0, 2, 2)
    assert Loss.from_json(json.loads(json.dumps(loss.to_json()))) == loss
    store = open_store(str(job.output))
    (segment,) = list_segments(store)
    rows = [json.loads(outcome.line)["row"] for outcome in read_segment(store, segment)]
    assert rows == [[0, 1], [0, 2]]
    assert attempts_of(job) == []
    ((name, death),) = deaths_of(job).items()
    assert name == "e000001-l000009-r000000000002.json"
    assert (death["signal"], death["exit_code"]) == ("SIGSEGV", None)
    assert death["row"] == {"row": 2, "file": 0, "path": "rows.jsonl", "line": 3}
    assert (death["epoch"], death["worker"], death["task"]["lease_id"]) == (1, 4, 9)
    assert death["peak_memory_bytes"] > death["own_memory_bytes"] > 10_000_000
    assert "fake:crash" not in json.dumps(death)


def test_a_solo_try_is_noted_before_it_is_made_and_its_death_after(keeper, job, monkeypatch):
    """If it cannot be noted, it is not made."""
    put_whole = LocalStore.put_whole

    def failing(self, name, content):
        if "attempts" in name:
            raise StoreError("no attempt can be noted")
        put_whole(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put_whole", failing)
        with pytest.raises(StoreError, match="no attempt can be noted"):
            keeper.run(lease(2, 3, is_suspect=True))
    assert deaths_of(job) == {}
    loss = keeper.run(lease(2, 3, is_suspect=True))
    assert (loss.row, loss.done) == (2, None)
    name = "000000000002-e000001-l000009"
    assert attempts_of(job) == [f"{name}.begun.json", f"{name}.session_killed.json"]


def test_a_solo_try_that_ends_well_is_no_strike(keeper, job):
    """Its object stays, and counts only as long as the row is not durable."""
    answer = keeper.run(lease(0, 1, is_suspect=True))
    assert isinstance(answer, LeaseDone)
    assert attempts_of(job) == ["000000000000-e000001-l000009.begun.json"]


def test_giving_a_row_up_does_not_run_it(keeper, job):
    """Its dead letter is written by a session that survives it."""
    answer = keeper.run(lease(2, 3, is_suspect=True, dead_reason="session_killed"))
    assert answer.totals.dead_reasons == {"session_killed": 1}
    assert attempts_of(job) == []


def test_a_session_that_takes_too_much_memory_is_killed_with_its_row(keeper, job):
    """The limit is for memory of its own; the row before it is kept."""
    loss = keeper.run(lease(3, 6))
    assert (loss.row, loss.timed_out, loss.done.end_row) == (4, False, 4)
    assert "limits.session_memory_bytes allows 400,000,000" in loss.cause
    (death,) = deaths_of(job).values()
    assert death["signal"] == "SIGKILL"
    assert LIMIT_BYTES < death["own_memory_bytes"] <= death["peak_memory_bytes"]


def test_a_row_that_takes_too_long_alone_is_a_strike_of_its_own_kind(keeper, job):
    """The dead letter that it may become says row_timeout."""
    loss = keeper.run(lease(5, 6, is_suspect=True))
    assert (loss.row, loss.timed_out) == (5, True)
    assert attempts_of(job)[1].endswith(".row_timeout.json")
    (death,) = deaths_of(job).values()
    assert death["row_s"] >= 2.0


def test_a_store_that_fails_does_not_hide_a_death(keeper, job, monkeypatch):
    """Strike, finished rows and forensics are lost; the driver still learns of the row."""

    def failing(_store, name, _content):
        raise StoreError(f"{name}: the store is away")

    monkeypatch.setattr(LocalStore, "put_whole", failing)
    monkeypatch.setattr(LocalStore, "put_file", failing)
    loss = keeper.run(lease(1, 3))
    assert (loss.row, loss.done) == (2, None)
    assert "SIGSEGV" in loss.cause
    assert deaths_of(job) == {}


def test_a_fenced_worker_keeps_no_rows_and_ends_its_driver(keeper, job):
    """A later epoch has the output now."""
    open_store(str(job.output)).put_whole(driver_epoch(2), b"{}")
    with pytest.raises(OutputOwned):
        keeper.run(lease(0, 3))
    assert list(job.output.glob("_run/segments/*/*")) == []


def test_a_session_that_needs_too_much_to_open_is_named(job):
    """The limit is too low for any row."""
    keeper = SessionKeeper(make_context(job, session_memory_bytes=1), worker_id=4)
    try:
        with pytest.raises(
            SessionBroken, match=r"limits.session_memory_bytes allows 1\b"
        ) as caught:
            keeper.wait_ready()
    finally:
        keeper.close()
    assert caught.value.row is None
    assert list(deaths_of(job)) == ["e000001-w000004-open.json"]


def test_a_death_while_sealing_is_described_by_its_shard(keeper, job):
    """No row is in progress and none is blamed."""
    os.kill(keeper.session_pid, signal.SIGKILL)
    loss = keeper.run(SealTask(0))
    assert (loss.row, loss.done) == (None, None)
    assert list(deaths_of(job)) == ["e000001-w000004-seal-00000.json"]
