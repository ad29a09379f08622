"""A real S3 server for the tests: SeaweedFS, one process, all of it on loopback ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WEED = Path(sys.executable).with_name("weed")
_PORTS = (
    *("s3.port", "s3.port.grpc", "filer.port", "filer.port.grpc", "master.port"),
    *("master.port.grpc", "volume.port", "volume.port.grpc", "admin.port", "admin.port.grpc"),
)
_START_S = 60.0


@contextmanager
def run_seaweed(bucket: str, key: str) -> Iterator[int]:
    """Run a server with one bucket, and one user whose key and secret are the same; its port."""
    folder = Path(tempfile.mkdtemp(prefix="rdu-weed-"))
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [
        *(str(WEED), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-bucket={bucket}", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": key}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_until_up(server, ports["s3.port"], folder / "log")
        yield ports["s3.port"]
    finally:
        # Its data is thrown away, so it need not end in order.
        server.kill()
        server.wait(timeout=30)
        shutil.rmtree(folder)
        for port in ports.values():
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(taken.getsockname()[1]) for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    latest_s = time.monotonic() + _START_S
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5)
        except OSError:
            if server.poll() is not None or time.monotonic() > latest_s:
                raise RuntimeError(f"weed does not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.1)
        else:
            return
