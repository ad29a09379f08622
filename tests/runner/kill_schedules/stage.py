"""What all trials share: one Ray, one S3 server, the jobs, and what each comes to undisturbed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rdu_batch.storage.store import open_store
from tests.runner.kill_schedules.processes import Handle, below, wait_for
from tests.runner.kill_schedules.schedule import Kind

#: Short, so that a driver that stands still is taken over in seconds.
HEARTBEAT_S = "0.25"
#: A row of the fake session takes so long, so that a job lasts long enough to be struck.
NAP_S = 0.15
NUM_ROWS = {"fake": 34, "eager": 120}
ROWS_PER_SHARD = {"fake": 6, "eager": 20}
SAMPLING = {"temperature": 1.3, "top_p": 0.95, "seed": 11}


@dataclass(frozen=True)
class Job:
    """A job file without its output, and an undisturbed run of it, which may still go on."""

    path: Path
    num_rows: int
    calm_output: str
    calm_run: subprocess.Popen[str]


@dataclass
class Stage:
    """Where the trials take place.

    Args:
        folder: for job files and local outputs.
        bucket: URL of a folder on the S3 server.
        environment: of every driver and of Ray.
        head: process id above everything that Ray runs.
        address: of Ray.
        troubled_lines: rows that become dead letters.
        artifact_of: the URL of a tiny model's artifact of a kind.
    """

    folder: Path
    bucket: str
    environment: dict[str, str]
    head: int
    address: str
    troubled_lines: list[bytes]
    artifact_of: Callable[[str], str]
    _jobs: dict[tuple[Kind, bool, str], Job] = field(default_factory=dict)
    _calm: dict[str, dict[str, str]] = field(default_factory=dict)

    def job_of(self, session: Kind, is_sampled: bool, store: str) -> Job:
        """A job on a store; its undisturbed run is started when it is first asked for."""
        key = session, is_sampled, store
        if key not in self._jobs:
            self._jobs[key] = self._make_job(*key)
        return self._jobs[key]

    def new_folder(self, store: str) -> str:
        """URL of a new folder on a store."""
        root = self.bucket if store == "s3" else str(self.folder)
        return f"{root}/{uuid.uuid4().hex[:12]}"

    def command(self, verb: str, *arguments: object) -> list[str]:
        """A command line."""
        return [sys.executable, "-m", "rdu_batch", verb, *map(str, arguments)]

    def published_by_calm_run(self, job: Job) -> dict[str, str]:
        """Name to sha256 of what a job publishes when nothing happens to it."""
        if job.calm_output not in self._calm:
            _, errors = job.calm_run.communicate(timeout=120)
            assert job.calm_run.returncode == 0, errors
            self._calm[job.calm_output] = published(job.calm_output)
        return self._calm[job.calm_output]

    def close(self) -> None:
        """End undisturbed runs that nobody waited for."""
        for job in self._jobs.values():
            job.calm_run.kill()
            job.calm_run.communicate()

    def _make_job(self, kind: Kind, is_sampled: bool, store: str) -> Job:
        lines = [_line(number, kind) for number in range(NUM_ROWS[kind])]
        lines[10:10] = self.troubled_lines
        source = self.new_folder(store)
        open_store(source).put_whole("rows.jsonl", b"".join(line + b"\n" for line in lines))
        session: dict[str, str] = {"kind": kind}
        if kind != "fake":
            session["artifact"] = self.artifact_of(kind)
        output = self.new_folder(store)
        spec = {
            "version": 1,
            "name": "struck",
            "input": {"urls": [f"{source}/rows.jsonl"], "id_field": "id", "carry": ["label"]},
            "prompt": {"field": "text"},
            "session": session,
            "generation": {"max_new_tokens": 20, **(SAMPLING if is_sampled else {})},
            "output": {"url": output, "rows_per_shard": ROWS_PER_SHARD[kind]},
            "workers": {"cpus": 0.25},
            "limits": {"max_dead_rows": "100%"},
        }
        path = self.folder / f"{uuid.uuid4().hex[:12]}.yaml"
        path.write_text(yaml.safe_dump(spec))
        calm_run = subprocess.Popen(
            self.command("run", path, "--executor", "inline"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        # A blank line is no row.
        return Job(path, sum(bool(line) for line in lines), output, calm_run)


def published(output: str) -> dict[str, str]:
    """Name to sha256 of everything that a consumer may read, on any store."""
    store = open_store(output)
    return {name: hashlib.sha256(store.read(name)).hexdigest() for name in store.list_names()}


def _line(number: int, kind: str) -> bytes:
    text = f"row {number} " + "word " * (number % 4)
    if kind == "fake":
        text += f"[[fake:sleep {NAP_S}]]"
    return json.dumps({"id": f"r{number}", "text": text, "label": number}).encode()


def environment_of(s3_port: int, folder: Path) -> dict[str, str]:
    """For drivers and Ray's workers: the S3 server, a quick heartbeat, a folder for scratch."""
    names = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {
        **names,
        **s3_variables(s3_port),
        # Whatever Ray's files in the home folder say: this Ray is for who has this.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RDU_BATCH_HEARTBEAT_S": HEARTBEAT_S,
        "TMPDIR": str(folder),
    }


def s3_variables(port: int) -> dict[str, str]:
    """What points an S3 client to a loopback port, with made-up credentials."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


@contextmanager
def run_ray(environment: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Run a Ray of this test alone; gives the process above all of it, and its address.

    Its ports are free ones, and its folder is its own, so that no other run on this machine finds
    it or is found by it.
    """
    # A short name: sockets lie in it, and their paths may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="rdu-ray-", dir="/tmp"))
    port, client_port, agent_port = _free_ports(3)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={port}", f"--ray-client-server-port={client_port}"),
        *(f"--dashboard-agent-listen-port={agent_port}", "--node-ip-address=127.0.0.1"),
        *("--include-dashboard=false", "--include-log-monitor=false", "--disable-usage-stats"),
        *("--num-cpus=4", f"--object-store-memory={100 << 20}", f"--temp-dir={folder}"),
    ]
    log = folder / "start.log"
    with log.open("wb") as output:
        ray = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        wait_for(
            lambda: b"Ray runtime started" in log.read_bytes() or ray.poll() is not None,
            "a Ray for the trials",
        )
        assert ray.poll() is None, log.read_text()
        yield ray.pid, f"127.0.0.1:{port}"
    finally:
        _end(ray)
        shutil.rmtree(folder, ignore_errors=True)


def _end(ray: subprocess.Popen[bytes]) -> None:
    """End Ray in order, then whatever of it is still there, stopped processes included."""
    handles = []
    for pid in below(ray.pid):
        try:
            handles.append(Handle(pid))
        except ProcessLookupError:
            continue
    ray.terminate()
    try:
        ray.wait(timeout=20)
    except subprocess.TimeoutExpired:
        ray.kill()
        ray.wait()
    for handle in handles:
        handle.send(signal.SIGKILL)
        handle.close()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(taken.getsockname()[1]) for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports
