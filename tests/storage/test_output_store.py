"""Opening an output for its commit protocol, and the check before a job begins."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

from rdu_batch.errors import CreateOnceUnsupported, StoreError
from rdu_batch.job.plan import FORMAT_VERSION, Plan
from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.sealing import seal_shard
from rdu_batch.storage.local_store import LocalStore
from rdu_batch.storage.object_store import ObjectStore
from rdu_batch.storage.output_store import SingleWriterStore, check_output, open_output
from rdu_batch.storage.store import Store, open_store

if TYPE_CHECKING:
    from tests.storage.conftest import ScriptedS3

FOLDER = "_run/probe"
DECIDES = {"output": {"format": "jsonl", "rows_per_shard": 1}}
WAY_OUT = "output.single_writer: true"


class Unguarded(ObjectStore):
    """Puts whole, and has no create-once."""

    create_once_by = None


def hf_like() -> Unguarded:
    """Over fsspec's memory."""
    name = uuid.uuid4().hex
    return Unguarded(f"hf://{name}", "hf", fsspec.filesystem("memory"), f"/{name}")


def test_every_store_of_ours_passes_the_check_and_is_left_clean(store: Store) -> None:
    """Nothing stays in the folder."""
    check_output(store, FOLDER)
    assert store.list_names("", recursive=True) == []


@pytest.mark.s3
def test_a_server_that_ignores_the_condition_is_refused_with_the_ways_out(
    s3_url: str, s3_faults: Callable[..., None]
) -> None:
    """What was seen, the verb that shows more, and the promise that a user can give."""
    s3_faults(ignores_conditions=True)
    with pytest.raises(CreateOnceUnsupported) as caught:
        check_output(open_output(s3_url), FOLDER)
    for words in (s3_url, "said that it had won", f"rdu-batch probe {s3_url}", WAY_OUT):
        assert words in str(caught.value)
    check_output(open_output(s3_url, single_writer=True), FOLDER)
    assert open_store(s3_url).list_names("", recursive=True) == []


def test_two_creators_that_both_win_are_refused(tmp_path: Path) -> None:
    """A third that comes late is refused by this driver; only the race shows it."""

    class Racy(LocalStore):
        def create_once(self, name: str, content: bytes) -> bool:
            """Refuse only once two have won."""
            is_third = len(self.list_names("told")) == 2
            self.put_whole(f"told/{uuid.uuid4().hex}", b"1")
            if not is_third:
                self.put_whole(name, content)
            return not is_third

    with pytest.raises(CreateOnceUnsupported, match="2 of 2 creators of one name"):
        check_output(Racy(str(tmp_path)), FOLDER)


def test_a_driver_without_create_once_is_refused_unless_there_is_one_writer() -> None:
    """The driver's own words are in the message."""
    with pytest.raises(CreateOnceUnsupported, match="has no such call") as caught:
        check_output(hf_like(), FOLDER)
    assert WAY_OUT in str(caught.value)
    check_output(SingleWriterStore(hf_like()), FOLDER)


def test_a_mount_without_hard_links_is_refused_unless_there_is_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some network and FAT mounts are."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    from tests.storage.conftest import refuse_nameless_files

    monkeypatch.setattr(os, "open", refuse_nameless_files())
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(CreateOnceUnsupported, match="no hard links") as caught:
        check_output(open_output(str(tmp_path)), FOLDER)
    assert WAY_OUT in str(caught.value)
    check_output(open_output(str(tmp_path), single_writer=True), FOLDER)


@pytest.mark.parametrize("single_writer", [False, True])
def test_no_promise_of_a_user_makes_a_read_only_driver_an_output(single_writer: bool) -> None:
    """http:// is refused, and the promise is not offered as a way out."""
    pytest.importorskip("aiohttp")
    with pytest.raises(StoreError) as caught:
        check_output(open_output("http://127.0.0.1:9/x", single_writer=single_writer), FOLDER)
    assert WAY_OUT not in str(caught.value)


@pytest.mark.s3
def test_a_server_that_fails_is_not_called_unable(scripted_s3: ScriptedS3) -> None:
    """Denied access is a StoreError of its own kind."""
    scripted_s3.script = [(403, "AccessDenied")] * 10
    with pytest.raises(StoreError, match="access denied") as caught:
        check_output(open_store("s3://bucket/out"), FOLDER)
    assert not isinstance(caught.value, CreateOnceUnsupported)


def plan() -> Plan:
    """One shard of two rows."""
    return Plan(FORMAT_VERSION, "test", "sha256:0", DECIDES, 1, 2, 80, 2, (), ())


def outcomes(word: bytes) -> list[Outcome]:
    """Two predictions."""
    line = b'{"row":[0,1],"prediction":"' + word + b'"}\n'
    return [Outcome(True, "eos", line, 3, 5)] * 2


def test_a_zombie_between_the_look_and_the_write_leaves_one_whole_commit(tmp_path: Path) -> None:
    """The last record stands; what is published is what it names, even where bytes differ."""

    class Zombie(LocalStore):
        """Another process seals the shard right after this one looked for its record."""

        is_due = True

        def exists(self, name: str) -> bool:
            """See above."""
            found = super().exists(name)
            if "commits" in name and self.is_due:
                self.is_due = False
                other = SingleWriterStore(LocalStore(str(tmp_path)))
                seal_shard(other, plan(), plan().shard(0), outcomes(b"zombie"))
            return found

    store = SingleWriterStore(Zombie(str(tmp_path)))
    record = seal_shard(store, plan(), plan().shard(0), outcomes(b"ours"))
    part = store.read("part-00000-of-00001.jsonl")
    assert part == store.read(record.part.name)
    assert part.count(b"ours") == 2
    again = seal_shard(store, plan(), plan().shard(0), outcomes(b"later"))
    assert again == record
    assert store.read("part-00000-of-00001.jsonl") == part


def test_a_writer_that_was_overwritten_at_once_knows_that_it_lost(tmp_path: Path) -> None:
    """It reads what stands before it says that it won."""

    class Overwritten(LocalStore):
        def put_whole(self, name: str, content: bytes) -> None:
            """Another process writes the same name right after."""
            super().put_whole(name, content)
            super().put_whole(name, b"another's")

    store = SingleWriterStore(Overwritten(str(tmp_path)))
    assert store.create_once("record", b"mine") is False
    assert store.create_or_read("record", b"mine") == b"another's"
