"""``rdu-batch probe``: the exit code tells whether a store can hold an output that is raced for."""

import importlib.util
import json

import pytest

from rdu_batch.cli.main import run


@pytest.fixture
def probe(capsys):
    def probe(url):
        code = run(["probe", str(url)])
        stdout, stderr = capsys.readouterr()
        document = json.loads(stdout.strip().splitlines()[-1])
        assert len(stdout.strip().splitlines()) == 1
        assert document["exit"] == code
        return code, document, stderr

    return probe


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_sound_store_is_exit_0_with_a_table_and_one_json_line(probe, tmp_path, kind):
    """The table is for people, on standard error; what the folder held is still all there."""
    url = tmp_path if kind == "local" else "memory://probe-verb/out"
    (tmp_path / "mine").write_text("mine")
    code, document, stderr = probe(url)
    assert (code, document["protocol"]) == (0, "create_once")
    assert {found["verdict"] for found in document["findings"].values()} == {"held"}
    for words in (str(url), "exactly one wins", "one creator won in each of", "median ms"):
        assert words in stderr
    by = "a hard link" if kind == "local" else "a lock of this process"
    assert f"create_once, by {by}" in stderr
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_a_store_that_is_only_read_is_exit_6(probe):
    """No request is made; what to do is said."""
    pytest.importorskip("aiohttp")
    code, document, stderr = probe("http://127.0.0.1:9/folder")
    assert (code, document["protocol"]) == (6, "none")
    assert "choose another one for output.url" in stderr
    assert "single_writer" not in stderr


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_missing_driver_is_exit_6_and_names_the_extra(probe):
    """As every verb says it."""
    code, document, stderr = probe("gs://bucket/folder")
    assert (code, document["error"]) == (6, "StoreDriverMissing")
    assert "rdu_batch[gcs]" in stderr


def test_a_folder_that_cannot_be_written_is_exit_6(probe, tmp_path):
    """A file stands where the folder should be: that is an error, no finding."""
    (tmp_path / "file").write_text("in the way")
    code, document, stderr = probe(tmp_path / "file" / "out")
    assert (code, document["error"]) == (6, "StoreError")
    assert str(tmp_path / "file") in stderr
