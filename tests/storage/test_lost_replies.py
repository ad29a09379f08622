"""A creation whose reply is lost is still the creator's own: of a commit, of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rdu_batch.dataset.planning import PlannedJob, load_plan, save_plan
from rdu_batch.errors import CreateOnceUnsupported, ObjectMissing, StoreError
from rdu_batch.job.plan import FORMAT_VERSION, Plan, digest_of
from rdu_batch.runner.canary import check_canary
from rdu_batch.runner.commits import CommitRecord, SealedFile, create_commit
from rdu_batch.runner.epochs import read_owner, take_epoch
from rdu_batch.runner.outcomes import Outcome, Totals
from rdu_batch.runner.sealing import seal_shard
from rdu_batch.sessions.registry import open_session
from rdu_batch.storage.local_store import LocalStore
from rdu_batch.storage.remote_store import RemoteStore
from rdu_batch.storage.retries import Retries
from rdu_batch.storage.store import open_store

SetFaults = Callable[..., None]
DECIDES = {"output": {"format": "jsonl", "rows_per_shard": 1}}
#: How a store may lose a reply: the driver asks again and is refused, or it gives up.
WAYS = ["says False", "fails"]


class LossyStore(LocalStore):
    """Creates, and loses the reply."""

    def __init__(self, path: str, way: str) -> None:
        super().__init__(path)
        self._way = way

    def create_once(self, name: str, content: bytes) -> bool:
        """See above."""
        super().create_once(name, content)
        if self._way == "fails":
            raise StoreError(f"cannot create {name}: the connection was closed")
        return False


def record_of(attempt: str) -> CommitRecord:
    """A commit record of shard 0."""
    part = SealedFile(f"_run/sealed/00000/part-{attempt}.jsonl", 1, 2, "0" * 64)
    return CommitRecord(0, "sha256:0", attempt, part, None, Totals())


@pytest.mark.parametrize("way", WAYS)
def test_what_stands_is_returned_whoever_made_it(tmp_path: Path, way: str) -> None:
    """Ours where the reply was lost; the first one's where we came late."""
    store = LossyStore(str(tmp_path), way)
    assert store.create_or_read("x", b"first") == b"first"
    assert store.create_or_read("x", b"second") == b"first"


def test_a_failure_that_created_nothing_stays_a_failure(tmp_path: Path) -> None:
    """The creation's own error, not that of the look which followed."""

    class Away(LocalStore):
        def create_once(self, name: str, content: bytes) -> bool:
            """Fail before anything happens."""
            raise StoreError("the service is away")

    with pytest.raises(StoreError, match="the service is away") as caught:
        Away(str(tmp_path)).create_or_read("x", b"1")
    assert not isinstance(caught.value, ObjectMissing)


def test_a_store_that_cannot_is_not_taken_for_one_that_failed(tmp_path: Path) -> None:
    """Even where an object of that name is there."""

    class Unable(LocalStore):
        def create_once(self, name: str, content: bytes) -> bool:
            """Refuse."""
            raise CreateOnceUnsupported("no such call")

    store = Unable(str(tmp_path))
    store.put_whole("x", b"1")
    with pytest.raises(CreateOnceUnsupported):
        store.create_or_read("x", b"1")


@pytest.mark.parametrize("way", WAYS)
def test_a_commit_whose_reply_is_lost_is_ours(tmp_path: Path, way: str) -> None:
    """And a later attempt still learns that it lost."""
    store = LossyStore(str(tmp_path), way)
    ours, later = record_of("aaaa"), record_of("bbbb")
    assert create_commit(store, ours) == ours
    assert create_commit(store, later) == ours


@pytest.mark.parametrize("way", WAYS)
def test_an_epoch_whose_reply_is_lost_is_ours(tmp_path: Path, way: str) -> None:
    """A driver does not take its own epoch for another driver's."""
    store = LossyStore(str(tmp_path), way)
    mine = take_epoch(store, 1, 5.0)
    assert mine is not None
    assert read_owner(store, 1) == mine
    assert take_epoch(store, 1, 5.0) is None


@pytest.mark.parametrize("way", WAYS)
def test_a_shard_is_sealed_once_over_lost_replies(tmp_path: Path, way: str) -> None:
    """One record, which names the file that was published."""
    store = LossyStore(str(tmp_path), way)
    plan = Plan(FORMAT_VERSION, "test", "sha256:0", DECIDES, 1, 1, 80, 1, (), ())
    outcome = Outcome(True, "eos", b'{"row":[0,1],"prediction":"x"}\n', 3, 5)
    record = seal_shard(store, plan, plan.shard(0), [outcome])
    assert isinstance(record, CommitRecord)
    assert store.read("part-00000-of-00001.jsonl") == store.read(record.part.name) == outcome.line
    assert store.list_names("_run/sealed/00000") == [record.part.name]


@pytest.mark.parametrize("way", WAYS)
def test_a_plan_whose_reply_is_lost_is_the_plan(tmp_path: Path, way: str) -> None:
    """Nothing is planned twice, and nothing ends with an error."""
    store = LossyStore(str(tmp_path), way)
    plan = Plan(FORMAT_VERSION, "test", digest_of(DECIDES), DECIDES, 0, 0, 0, 1, (), ())
    assert save_plan(store, PlannedJob(plan, ())) == plan
    assert load_plan(store) == plan


@pytest.mark.parametrize("way", WAYS)
def test_a_canary_whose_reply_is_lost_is_the_runs(tmp_path: Path, way: str) -> None:
    """The worker that made it is not refused, and neither is the next."""
    store = LossyStore(str(tmp_path), way)
    for _ in range(2):
        session = open_session("fake", None, threads=1)
        check_canary(store, session)
        session.close()
    assert store.list_names("_run") == ["_run/canary.json"]


@pytest.mark.s3
@pytest.mark.parametrize("lost_as", ["503 Slow Down", "500 Internal Error", "drop"])
def test_the_driver_of_s3_takes_its_own_object_for_anothers(
    s3_url: str, s3_faults: SetFaults, lost_as: str
) -> None:
    """It is asked again, and the server refuses: so what stands must be read."""
    store = open_store(s3_url)
    s3_faults(num_lost=1, lost_as=lost_as)
    assert store.create_once("a", b"mine") is False
    assert store.read("a") == b"mine"
    s3_faults(num_lost=1, lost_as=lost_as)
    assert store.create_or_read("b", b"mine") == b"mine"
    assert store.create_or_read("b", b"late") == b"mine"


@pytest.mark.s3
def test_a_driver_of_s3_that_does_not_ask_again_fails_over_its_own_object(
    s3_url: str, s3_faults: SetFaults
) -> None:
    """As at the end of its patience; the look afterwards tells."""
    store = open_store(s3_url)
    assert isinstance(store, RemoteStore)
    store.retries = Retries(num_tries=1)
    s3_faults(num_lost=1, lost_as="500 Internal Error")
    with pytest.raises(StoreError, match="cannot create"):
        store.create_once("a", b"mine")
    s3_faults(num_lost=1, lost_as="500 Internal Error")
    assert store.create_or_read("b", b"mine") == b"mine"
