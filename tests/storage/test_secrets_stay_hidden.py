"""A planted secret is in nothing that a job writes or says, whatever fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fsspec.implementations.memory import MemoryFileSystem

from rdu_batch.errors import StoreError
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.failpoint import FAULT_VARIABLE, Act, Failpoint, Role, Strike
from rdu_batch.storage.object_store import ObjectStore
from rdu_batch.storage.options_in_force import use_storage_options
from rdu_batch.storage.remote_store import RemoteStore
from rdu_batch.storage.retries import Retries
from rdu_batch.storage.store import open_store
from tests.storage.file_site import FileSite, serve_files

if TYPE_CHECKING:
    from tests.storage.conftest import Place

SECRET = "planted/secret+of=the"
FORMS = [form.encode() for form in (SECRET, "planted%2Fsecret%2Bof%3Dthe", "planted\\/secret")]


def write_job(folder: Path, site: FileSite, output: dict[str, Any]) -> Path:
    """A job that reads with a secret and writes with one; one row kills its session."""
    headers = {"Authorization": "Bearer ${ENV:PLANTED}"}
    job = folder / "job.yaml"
    job.write_text(
        yaml.safe_dump(
            {
                "version": 1,
                "name": "secrets",
                "input": {
                    "urls": [f"{site.url}/a.jsonl"],
                    "storage_options": {"client_kwargs": {"headers": headers}},
                },
                "prompt": {"field": "text"},
                "session": {"kind": "fake", "storage_options": {"secret": "${ENV:PLANTED}"}},
                "generation": {"max_new_tokens": 4},
                "output": {"rows_per_shard": 5, **output},
                "limits": {"max_dead_rows": "50%", "attempts_per_row": 1},
            }
        )
    )
    return job


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A temporary folder for all that a run leaves there; short, for Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run(job: Path, scratch: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run it in a process of its own, with the secret in its environment."""
    command = [sys.executable, "-m", "rdu_batch", "run", str(job), *arguments]
    environment = {**os.environ, "PLANTED": SECRET, "TMPDIR": str(scratch)}
    return subprocess.run(command, capture_output=True, check=False, env=environment)


def expect_hidden(name: str, content: bytes) -> None:
    """None of the secret's forms is in it."""
    found = [form for form in FORMS if form in content]
    assert not found, f"{name}: {content[max(0, content.find(found[0]) - 200) :][:400]!r}"


def expect_files_hidden(*folders: Path) -> list[str]:
    """Look into every file below; their names."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path in files:
        expect_hidden(str(path), path.read_bytes())
    return [path.name for path in files]


@pytest.fixture
def rows() -> dict[str, bytes]:
    """The input of the job."""
    lines = [json.dumps({"text": f"row {n}"}) for n in range(12)]
    return {"a.jsonl": "\n".join(lines).encode() + b"\n"}


def test_nothing_that_a_job_leaves_or_says_holds_the_secret(
    tmp_path: Path, scratch: Path, rows: dict[str, bytes]
) -> None:
    """Plan, index, manifest, parts, results, epochs, forensics, stdout, stderr, scratch files."""
    pytest.importorskip("aiohttp")
    with serve_files(rows) as site:
        site.authorization = f"Bearer {SECRET}"
        options = {"storage_options": {"password": "${ENV:PLANTED}"}}
        job = write_job(tmp_path, site, {"url": str(tmp_path / "out"), **options})
        done = run(job, scratch, "--executor", "inline")
    assert done.returncode == 0, done.stderr
    wanted = {"plan.json", "manifest.json", "000001.json", "part-00000-of-00003.jsonl"}
    assert wanted <= set(expect_files_hidden(tmp_path, scratch))
    expect_hidden("stdout", done.stdout)
    expect_hidden("stderr", done.stderr)


@pytest.mark.ray
@pytest.mark.all_only
def test_nothing_that_ray_keeps_of_a_job_holds_the_secret(
    tmp_path: Path, scratch: Path, rows: dict[str, bytes]
) -> None:
    """A row kills its session, so that there are forensics; Ray's own logs are looked at, too."""
    pytest.importorskip("aiohttp")
    lines = rows["a.jsonl"].splitlines()
    lines[3] = json.dumps({"text": "[[fake:crash]]"}).encode()
    with serve_files({"a.jsonl": b"\n".join(lines)}) as site:
        site.authorization = f"Bearer {SECRET}"
        options = {"storage_options": {"password": "${ENV:PLANTED}"}}
        job = write_job(tmp_path, site, {"url": str(tmp_path / "out"), **options})
        done = run(job, scratch, "--address", "local", "--set", "workers.count=1")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").rglob("forensics/*"))
    left = expect_files_hidden(tmp_path, scratch)
    assert any("job_context" in name or name.endswith(".out") for name in left), left
    expect_hidden("stdout", done.stdout)
    expect_hidden("stderr", done.stderr)


@pytest.mark.parametrize("status", [401, 418, "echo"])
def test_an_input_that_fails_does_not_say_the_secret(
    tmp_path: Path, scratch: Path, rows: dict[str, bytes], status: int | str
) -> None:
    """Even where the server's answer quotes what it was sent."""
    pytest.importorskip("aiohttp")
    with serve_files(rows) as site:
        if isinstance(status, int):
            site.script = [status] * 100
        else:
            site.authorization = "another"  # the server says back what it got
        job = write_job(tmp_path, site, {"url": str(tmp_path / "out")})
        done = run(job, scratch, "--executor", "inline")
    assert done.returncode == 4, done.stderr
    expect_hidden("stdout", done.stdout)
    expect_hidden("stderr", done.stderr)
    expect_files_hidden(tmp_path, scratch)


@pytest.mark.s3
def test_an_output_that_fails_midway_does_not_say_the_secret(
    s3_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    scratch: Path,
    rows: dict[str, bytes],
) -> None:
    """The store is refused halfway, and what the run wrote until then is looked at."""
    options = {"secret": "${ENV:PLANTED}", "key": "${ENV:PLANTED}"}
    with serve_files(rows) as site:
        site.authorization = f"Bearer {SECRET}"
        job = write_job(tmp_path, site, {"url": f"{s3_url}/out", "storage_options": options})
        strike = Strike(Role.WORKER, "put_file", "_run/sealed/.*", 2, Act.FAIL)
        fault = Failpoint(str(tmp_path), str(tmp_path / "marks"), strike)
        monkeypatch.setenv(FAULT_VARIABLE, fault.to_json())
        done = run(job, scratch, "--executor", "inline")
    assert done.returncode == 6, done.stderr
    expect_hidden("stdout", done.stdout)
    expect_hidden("stderr", done.stderr)
    store = open_store(s3_url)
    names = store.list_names("", recursive=True)
    assert "out/_run/plan.json" in names
    for name in names:
        expect_hidden(name, store.read(name))


@pytest.mark.servers
def test_a_driver_that_quotes_its_credentials_is_not_repeated(
    place_on: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Azure's words about a broken connection string, in the error and in its causes."""
    place = place_on("azure")
    monkeypatch.setenv("TEST_AZURE_CONNECTION", f"AccountName=x;AccountKey={SECRET};Blob=???")
    place.use()
    store = open_store(place.url)
    assert isinstance(store, RemoteStore)
    store.retries = Retries(num_tries=1)
    with pytest.raises(StoreError) as caught:
        store.put_whole("x", b"1")
    expect_hidden("traceback", "".join(traceback.format_exception(caught.value)).encode())


class Talkative(MemoryFileSystem):
    """A driver that says all it knows when it fails."""

    def cat_file(self, path: str, **_range: object) -> bytes:
        """Fail."""
        cause = ValueError(f"Authorization: Bearer {SECRET}")
        raise OSError(f"GET http://h/{path}?sig=abc&token={SECRET} was refused") from cause

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_more: object) -> None:
        """Fail as where a bucket is missing."""
        raise FileNotFoundError(f"{path} with {SECRET}")


@pytest.mark.parametrize("action", ["read", "put_whole", "create_once"])
def test_what_a_driver_quotes_is_hidden_in_the_error_and_in_its_traceback(
    monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """The error still says what failed; a cause that would say more is left out."""
    monkeypatch.setenv("PLANTED", SECRET)
    document = {
        "version": 1,
        "name": "test",
        "input": {"urls": ["/in"]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "output": {"url": "s3://b/out", "storage_options": {"secret": "${ENV:PLANTED}"}},
    }
    use_storage_options(JobSpec.model_validate(document))
    store = ObjectStore("s3://b/out", "s3", Talkative(), "/b/out")
    with pytest.raises(StoreError, match="s3://b/out/x") as caught:
        getattr(store, action)(*["x", b"1"][: 1 if action == "read" else 2])
    assert "***" in str(caught.value)
    expect_hidden("traceback", "".join(traceback.format_exception(caught.value)).encode())
