"""Chains of drivers are read: archives and caches over another store; never written."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from rdu_batch.dataset.listing import list_inputs
from rdu_batch.errors import CreateOnceUnsupported, ObjectMissing, StoreError
from rdu_batch.storage.output_store import check_output, open_output
from rdu_batch.storage.store import open_object, open_store

pytestmark = pytest.mark.s3

FILES = {"a.jsonl": b'{"text": "a"}\n', "in/b.jsonl": b"1234567890\n", "in/deep/c.jsonl": b"{}\n"}


def zipped() -> bytes:
    """An archive of the files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    return content.getvalue()


@pytest.fixture
def archive(s3_url: str) -> str:
    """The URL of an archive in a bucket."""
    open_store(s3_url).put_whole("x.zip", zipped())
    return f"{s3_url}/x.zip"


def test_an_archive_in_a_bucket_is_a_folder(archive: str) -> None:
    """Its files are listed, looked at and read by ranges, as in any store."""
    store = open_store(f"zip://::{archive}")
    assert store.list_names("", recursive=True) == sorted(FILES)
    assert store.list_names("in") == ["in/b.jsonl"]
    assert store.read("a.jsonl") == FILES["a.jsonl"]
    assert store.read_range("in/b.jsonl", 2, 5) == b"345"
    assert store.stat("in/b.jsonl").size_bytes == 11
    with pytest.raises(ObjectMissing):
        store.read("in/none.jsonl")
    below = open_store(f"zip://in::{archive}")
    assert below.list_names("", recursive=True) == ["b.jsonl", "deep/c.jsonl"]
    folder, name = open_object(store.join("in/b.jsonl"))
    assert (name, folder.read(name)) == ("b.jsonl", FILES["in/b.jsonl"])


def test_files_of_an_archive_are_inputs_by_name_folder_and_pattern(archive: str) -> None:
    """The paths are those inside of the archive."""
    for url, paths in {
        f"zip://in/b.jsonl::{archive}": ["b.jsonl"],
        f"zip://in/::{archive}": ["b.jsonl", "deep/c.jsonl"],
        f"zip://::{archive}": sorted(FILES),
        f"zip://**/*.jsonl::{archive}": sorted(FILES),
    }.items():
        listed = list_inputs([url])
        assert [file.path for file in listed] == paths, url
        for file in listed:
            store, name = open_object(file.url)
            assert store.stat(name).size_bytes == file.size_bytes


def test_a_cached_bucket_is_read(s3_url: str, tmp_path: Path) -> None:
    """Over the cache of whole files, where the job has options for each driver."""
    del tmp_path
    open_store(f"{s3_url}/in").put_whole("b.jsonl", FILES["in/b.jsonl"])
    [listed] = list_inputs([f"simplecache::{s3_url}/in/*.jsonl"])
    assert (listed.path, listed.url) == ("b.jsonl", f"simplecache::{s3_url}/in/b.jsonl")
    store, name = open_object(listed.url)
    assert store.read(name) == FILES["in/b.jsonl"]
    assert store.read_range(name, 0, 4) == b"1234"


def test_a_chain_is_no_output(s3_url: str) -> None:
    """Told at the check before a run, and at any write."""
    store = open_output(f"simplecache::{s3_url}/out")
    with pytest.raises(StoreError, match="a chain of drivers cannot write an object whole"):
        store.put_whole("x", b"1")
    with pytest.raises(CreateOnceUnsupported, match=r"choose another output\.url"):
        check_output(store, "_run/probe")
