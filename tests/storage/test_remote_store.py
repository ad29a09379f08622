"""What drivers get wrong, and what a store says when they cannot be used."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from rdu_batch.errors import CreateOnceUnsupported, StoreError
from rdu_batch.storage.store import open_store
from rdu_batch.storage.store_errors import http_status

if TYPE_CHECKING:
    from tests.storage.conftest import ScriptedS3

StartPython = Callable[[str], "subprocess.Popen[str]"]


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://bucket/folder", "s3fs", "s3"),
        ("gs://bucket/folder", "gcsfs", "gcs"),
        ("abfs://container/folder", "adlfs", "azure"),
        ("sftp://127.0.0.1:9/folder", "paramiko", "sftp"),
        ("webdav://127.0.0.1:9/folder", "webdav4", "webdav"),
        ("https://127.0.0.1:9/folder", "aiohttp", "http"),
        ("hf://datasets/a/b", "huggingface_hub", "hf"),
    ],
)
def test_a_missing_driver_names_the_extra_to_install(
    run_python: StartPython, url: str, package: str, extra: str
) -> None:
    """In a process where the driver cannot be imported, and the URL is said."""
    program = f"""
import sys
sys.modules["{package}"] = None
from rdu_batch.errors import StoreDriverMissing
from rdu_batch.storage.store import open_store
try:
    open_store("{url}")
except StoreDriverMissing as error:
    print(error)
"""
    output, errors = run_python(program).communicate(timeout=60)
    assert f"pip install 'rdu_batch[{extra}]'" in output, errors
    assert f"cannot open {url}" in output


def test_an_unknown_protocol_lists_the_known_ones() -> None:
    """A slip such as s4:// is named with what would work."""
    with pytest.raises(StoreError, match=r"s4://bucket.*known here: local paths.* s3"):
        open_store("s4://bucket")


def test_a_driver_without_whole_writes_is_read_only() -> None:
    """http:// is refused before any request: a reader could see half of an object."""
    pytest.importorskip("aiohttp")
    store = open_store("http://127.0.0.1:9/folder")
    with pytest.raises(StoreError, match="cannot write an object whole"):
        store.put_whole("x", b"1")
    with pytest.raises(CreateOnceUnsupported, match="use a local folder, s3, gs, az"):
        store.create_once("x", b"1")


@pytest.mark.s3
def test_a_refused_condition_without_its_mark_still_means_there(scripted_s3: ScriptedS3) -> None:
    """Some servers send 412 without naming the condition, which s3fs makes a plain OSError."""
    scripted_s3.script = [(412, "PreconditionFailed")]
    assert open_store("s3://bucket/out").create_once("x", b"1") is False
    assert scripted_s3.conditions == ["*"]


@pytest.mark.s3
def test_a_conflict_of_two_creators_is_tried_again(scripted_s3: ScriptedS3) -> None:
    """409 says neither yes nor no; the next answer counts, and each try is conditional."""
    conflict = (409, "ConditionalRequestConflict")
    store = open_store("s3://bucket/out")
    scripted_s3.script = [conflict, conflict]
    assert store.create_once("x", b"1") is True
    scripted_s3.script = [conflict, (412, "PreconditionFailed")]
    assert store.create_once("y", b"1") is False
    assert set(scripted_s3.conditions) == {"*"}


@pytest.mark.s3
def test_a_conflict_that_never_ends_is_an_error(scripted_s3: ScriptedS3) -> None:
    """Neither True nor False is claimed."""
    scripted_s3.script = [(409, "ConditionalRequestConflict")] * 1000
    with pytest.raises(StoreError, match="cannot create s3://bucket/out/x"):
        open_store("s3://bucket/out").create_once("x", b"1")


def test_an_earlier_error_is_not_taken_for_the_answer() -> None:
    """A time-out while an old 412 is being handled is no 412; one raised from a 412 is."""
    refused = OSError("precondition failed")
    refused.status_code = 412  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError) as raised_while_handling:
        _fail_while_handling(refused)
    assert raised_while_handling.value.__context__ is refused
    assert http_status(raised_while_handling.value) is None
    with pytest.raises(TimeoutError) as raised_from:
        raise TimeoutError from refused
    assert http_status(raised_from.value) == 412


def _fail_while_handling(earlier: Exception) -> None:
    try:
        raise earlier
    except OSError:
        raise TimeoutError  # noqa: B904 - without a cause, as a new request's failure is


@pytest.mark.s3
def test_denied_access_is_said_plainly(scripted_s3: ScriptedS3) -> None:
    """403 names the credentials, for create-once as for a put."""
    store = open_store("s3://bucket/out")
    scripted_s3.script = [(403, "AccessDenied")] * 1000
    with pytest.raises(StoreError, match="access denied; check the permissions or credentials"):
        store.create_once("x", b"1")
    with pytest.raises(StoreError, match="access denied; check the permissions or credentials"):
        store.put_whole("x", b"1")


@pytest.mark.s3
def test_a_missing_bucket_is_said_plainly(s3_url: str) -> None:
    """The bucket is named, not a key."""
    del s3_url  # it starts the server
    store = open_store("s3://no-such-bucket/out")
    with pytest.raises(StoreError, match=r"no-such-bucket.*does not exist"):
        store.put_whole("x", b"1")
    with pytest.raises(StoreError, match="no-such-bucket"):
        store.create_once("x", b"1")


@pytest.mark.s3
def test_a_folder_mark_is_no_object(s3_url: str) -> None:
    """Consoles create empty "folder/" objects; a listing leaves them out."""
    import fsspec

    filesystem, path = fsspec.url_to_fs(s3_url)
    store = open_store(s3_url)
    store.put_whole("a/x", b"1")
    bucket, _, key = path.partition("/")
    filesystem.call_s3("put_object", Bucket=bucket, Key=f"{key}/a/", Body=b"")
    assert store.list_names("a") == ["a/x"]
    assert store.list_names("", recursive=True) == ["a/x"]


@pytest.mark.s3
def test_a_large_object_goes_through_several_parts_whole(s3_url: str) -> None:
    """More than two chunks of the driver; guarded by create-once as a small one."""
    store = open_store(s3_url)
    content = bytes(range(256)) * (105 * 2**20 // 256)
    assert store.create_once("big", content) is True
    assert store.create_once("big", content[1:]) is False
    assert store.stat("big").size_bytes == len(content)
    assert store.read_range("big", 2**26, 2**26 + 512) == content[:512]


def test_a_local_store_starts_without_fsspec(run_python: StartPython) -> None:
    """Opening a local folder imports no driver, so the plain verbs start fast."""
    program = """
import sys
from rdu_batch.storage.store import open_store
open_store("/tmp").exists("x")
print([name for name in ("fsspec", "s3fs", "torch", "ray", "numpy") if name in sys.modules])
"""
    output, errors = run_python(program).communicate(timeout=60)
    assert output == "[]\n", errors
