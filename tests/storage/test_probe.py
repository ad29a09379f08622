"""The probe tells stores that keep their promises from stores that only say so."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from rdu_batch.errors import CreateOnceUnsupported, StoreError
from rdu_batch.storage.creation_race import broken_race
from rdu_batch.storage.local_store import LocalStore
from rdu_batch.storage.object_store import ObjectStore
from rdu_batch.storage.output_store import check_output
from rdu_batch.storage.probe import MIN_ROUNDS, NUM_RACERS, probe_store
from rdu_batch.storage.protocol import Guarantee, Protocol, Verdict
from rdu_batch.storage.store import Store, open_store

FOLDER = "_run/probe"


@pytest.fixture(autouse=True)
def _short_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more rounds than the probe must have, where a store makes losers wait."""
    monkeypatch.setattr("rdu_batch.storage.probe.RACING_S", 1.0)


def broken(store: Store) -> set[Guarantee]:
    """What the probe finds to be broken; all else must be held."""
    findings = probe_store(store, FOLDER).findings
    assert [found.guarantee for found in findings] == list(Guarantee)
    assert {found.verdict for found in findings} <= {Verdict.HELD, Verdict.BROKEN}
    return {found.guarantee for found in findings if found.verdict is Verdict.BROKEN}


def test_every_store_of_ours_holds_everything_and_is_left_clean(store: Store) -> None:
    """Each request has a latency; what was there before is still there, nothing else."""
    store.put_whole("part-1", b"mine")
    report = probe_store(store, FOLDER)
    assert report.protocol is Protocol.CREATE_ONCE
    assert report.create_once_by == store.create_once_by
    assert all(found.verdict is Verdict.HELD for found in report.findings)
    requests = {"put", "read", "list", "copy", "delete", "create", "refused create"}
    assert set(report.latency_ms) == requests
    assert min(report.latency_ms.values()) >= 0
    assert store.list_names("", recursive=True) == ["part-1"]
    assert store.read("part-1") == b"mine"


@pytest.mark.s3
def test_a_server_that_ignores_the_condition_is_found_out(
    s3_url: str, s3_faults: Callable[..., None]
) -> None:
    """All of the eight win, in every round; the rest of the API is sound."""
    s3_faults(ignores_conditions=True)
    store = open_store(s3_url)
    report = probe_store(store, FOLDER)
    assert report.protocol is Protocol.SINGLE_WRITER
    *others, once, race = report.findings
    assert all(found.verdict is Verdict.HELD for found in others)
    assert (once.verdict, race.verdict) == (Verdict.BROKEN, Verdict.BROKEN)
    assert f"{NUM_RACERS} of {NUM_RACERS} creators" in race.seen
    assert store.list_names("", recursive=True) == []


@pytest.mark.servers
def test_the_lying_server_is_found_out(lying_url: str) -> None:
    """Rclone's S3 server says yes to every creator; one writer may use it all the same."""
    store = open_store(lying_url)
    report = probe_store(store, FOLDER)
    assert report.protocol is Protocol.SINGLE_WRITER
    verdicts = {found.guarantee: found.verdict for found in report.findings}
    assert verdicts[Guarantee.CREATE_ONCE] is verdicts[Guarantee.CREATE_RACE] is Verdict.BROKEN
    with pytest.raises(CreateOnceUnsupported, match="does not create objects exactly once"):
        check_output(store, FOLDER)


def test_a_driver_that_looks_and_then_writes_is_found_out_by_the_race(tmp_path: Path) -> None:
    """As fsspec's own local driver does: one creator alone is refused, eight at once are not."""
    filesystem = fsspec.filesystem("file", auto_mkdir=True)
    store = ObjectStore(f"s3://{tmp_path}", "s3", filesystem, str(tmp_path))
    assert broken(store) == {Guarantee.CREATE_RACE}


class RareLiar(LocalStore):
    """Tells the first loser of one race that it won, too; true to its word otherwise."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._has_lied = False
        self._lock = threading.Lock()

    def create_once(self, name: str, content: bytes) -> bool:
        """See above."""
        won = super().create_once(name, content)
        with self._lock:
            if won or self._has_lied or not name.endswith(f"race-{MIN_ROUNDS - 1}"):
                return won
            self._has_lied = True
            return True


class LateOverwriter(LocalStore):
    """Says False, but writes all the same, where eight ask at once."""

    def create_once(self, name: str, content: bytes) -> bool:
        """See above."""
        won = super().create_once(name, content)
        if not won and "race-" in name:
            self.put_whole(name, content)
        return won


@pytest.mark.parametrize("liar", [RareLiar, LateOverwriter])
def test_a_store_that_lies_in_some_races_only_is_found_out(
    liar: type[LocalStore], tmp_path: Path
) -> None:
    """One wrong round of all is enough."""
    assert broken(liar(str(tmp_path))) == {Guarantee.CREATE_RACE}


class HalfWriter(LocalStore):
    def put_whole(self, name: str, content: bytes) -> None:
        """Lose the end."""
        super().put_whole(name, content[: 2**15])


class NoEmptyObjects(LocalStore):
    def put_whole(self, name: str, content: bytes) -> None:
        """Skip an empty write, as a store without empty objects may."""
        if content:
            super().put_whole(name, content)


class StaleReader(LocalStore):
    """Reads the first content of an object for ever, as through a cache."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._cache: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        """See above."""
        return self._cache.setdefault(name, super().read(name))


class StaleLister(LocalStore):
    """Lists a folder as it was at first."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._cache: dict[str, list[str]] = {}

    def list_names(self, folder: str = "", *, recursive: bool = False) -> list[str]:
        """See above."""
        return self._cache.setdefault(folder, super().list_names(folder, recursive=recursive))


class LateCopier(LocalStore):
    """Copies when it is asked for the next copy, as a server may that answers before it is done."""

    _next: tuple[str, str] | None = None

    def copy(self, source: str, target: str) -> None:
        """See above."""
        if self._next is not None:
            super().copy(*self._next)
        self._next = (source, target)


class Keeper(LocalStore):
    def delete(self, name: str) -> None:
        """Keep it."""


class EmptyOverwriter(LocalStore):
    def create_once(self, name: str, content: bytes) -> bool:
        """Take an empty object for none, as some drivers do."""
        if self.exists(name) and not self.read(name):
            self.put_whole(name, content)
            return True
        return super().create_once(name, content)


@pytest.mark.parametrize(
    ("liar", "found"),
    [
        (NoEmptyObjects, {Guarantee.EMPTY_OBJECT, Guarantee.CREATE_ONCE}),
        (StaleLister, {Guarantee.LISTING}),
        (LateCopier, {Guarantee.COPY}),
        (Keeper, {Guarantee.DELETE, Guarantee.LISTING}),
        (EmptyOverwriter, {Guarantee.CREATE_ONCE}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_broken_promise_is_named(
    liar: type[LocalStore], found: set[Guarantee], tmp_path: Path
) -> None:
    """And nothing that the store keeps."""
    assert broken(liar(str(tmp_path))) == found
    assert LocalStore(str(tmp_path)).list_names("", recursive=True) == []


def test_an_overwrite_that_is_not_seen_rules_an_output_out(tmp_path: Path) -> None:
    """The heartbeat of a driver is read again and again."""
    report = probe_store(StaleReader(str(tmp_path)), FOLDER)
    verdicts = {found.guarantee: found.verdict for found in report.findings}
    assert verdicts[Guarantee.OVERWRITE] is Verdict.BROKEN
    assert report.protocol is Protocol.NONE


def test_without_whole_writes_nothing_else_is_looked_at(tmp_path: Path) -> None:
    """Half an object makes every other finding worthless."""
    report = probe_store(HalfWriter(str(tmp_path)), FOLDER)
    [found] = report.findings
    assert (found.guarantee, found.verdict) == (Guarantee.WHOLE_WRITE, Verdict.BROKEN)
    assert "32768 bytes, wanted 65536" in found.seen
    assert report.protocol is Protocol.NONE


def test_a_driver_that_only_reads_is_told_without_a_request() -> None:
    """http:// to a port where nothing listens."""
    pytest.importorskip("aiohttp")
    report = probe_store(open_store("http://127.0.0.1:9/folder"), FOLDER)
    [found] = report.findings
    assert (found.verdict, report.protocol) == (Verdict.UNSUPPORTED, Protocol.NONE)
    assert "cannot write an object whole" in found.seen


class Unguarded(ObjectStore):
    """Whole writes without a condition."""

    create_once_by = None


def test_a_driver_without_create_once_is_no_liar() -> None:
    """It says that it cannot, and one writer may use it."""
    url = f"hf://{uuid.uuid4().hex}"
    store = Unguarded(url, "hf", fsspec.filesystem("memory"), f"/{url[5:]}")
    report = probe_store(store, FOLDER)
    assert report.protocol is Protocol.SINGLE_WRITER
    assert report.create_once_by is None
    verdicts = {found.guarantee: found.verdict for found in report.findings}
    assert verdicts[Guarantee.CREATE_ONCE] is verdicts[Guarantee.CREATE_RACE] is Verdict.UNSUPPORTED


class FailsOnce(LocalStore):
    """A store whose copy fails."""

    def copy(self, source: str, target: str) -> None:
        """See above."""
        raise StoreError(f"cannot copy {source} to {target}: the service is away")


def test_a_store_that_fails_is_not_judged_and_is_left_clean(tmp_path: Path) -> None:
    """A service that is away has broken no promise: the error itself is what is seen."""
    with pytest.raises(StoreError, match="the service is away"):
        probe_store(FailsOnce(str(tmp_path)), FOLDER)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("told", "stands", "problem"),
    [
        ([True, False, False], b"a", None),
        ([False, False, False], b"b", None),
        ([True, True, False], b"a", "2 of 3 creators"),
        ([True, False, False], b"b", "not the content of the creator that won"),
        ([False, False, False], b"x", "not the content of the creator that won"),
    ],
)
def test_a_race_has_one_winner_whose_content_stands(
    told: list[bool], stands: bytes, problem: str | None
) -> None:
    """All refused is fine where one's content stands: that one's reply was lost."""
    found = broken_race(told, [b"a", b"b", b"c"], stands)
    assert found is None if problem is None else problem in str(found)
