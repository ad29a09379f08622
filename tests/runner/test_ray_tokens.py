"""A cluster that wants a token: a real Ray head, and what is found to show to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rdu_batch.errors import ClusterError, UsageError
from rdu_batch.runner.ray_jobs import RayJobs
from rdu_batch.runner.ray_tokens import headers_for_proxy, token_at_hand

TOKEN = "0123456789abcdef" * 4
VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_HEADERS")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home without a token, and no variable of Ray's."""
    for name in (*VARIABLES, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def save_token(path, token=TOKEN):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{token}\n")
    return path


def test_a_token_is_looked_for_where_ray_looks(home, monkeypatch):
    """The variable before the file that is named, that before the home's; none where a mode is."""
    assert token_at_hand() is None
    save_token(home / ".ray" / "auth_token", "of the home")
    assert token_at_hand() == "of the home"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(save_token(home / "named", "of the path")))
    assert token_at_hand() == "of the path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", " of the variable ")
    assert token_at_hand() == "of the variable"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert token_at_hand() is None


def test_headers_are_a_json_object_of_texts_or_an_error_that_hides_them(monkeypatch):
    """They hold secrets."""
    assert headers_for_proxy() == {}
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"Cookie": "session=1"}')
    assert headers_for_proxy() == {"Cookie": "session=1"}
    for wrong in ('{"Cookie": sEcReT}', '{"Cookie": ["sEcReT"]}', '"sEcReT"'):
        monkeypatch.setenv("RAY_JOB_HEADERS", wrong)
        with pytest.raises(UsageError, match="RAY_JOB_HEADERS") as caught:
            headers_for_proxy()
        assert "sEcReT" not in str(caught.value)


class GuardedHead:
    """A real head on ports of its own, started with a token."""

    def __init__(self, folder):
        sockets = [socket.socket() for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        self.port, self.dashboard_port, agent_port = (one.getsockname()[1] for one in sockets)
        for one in sockets:
            one.close()
        environment = {name: text for name, text in os.environ.items() if name not in VARIABLES}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(save_token(folder / "token"))}
        self._process = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
                *("--num-cpus=2", f"--port={self.port}", f"--dashboard-port={self.dashboard_port}"),
                f"--dashboard-agent-listen-port={agent_port}",
                f"--object-store-memory={80 << 20}",
            ],
            env={**environment, **token, "RAY_TMPDIR": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait(self.dashboard_port)

    def _wait(self, port):
        deadline_s = time.monotonic() + 90
        while True:
            assert self._process.poll() is None, "the head ended"
            assert time.monotonic() < deadline_s, "no dashboard within 90 s"
            with socket.socket() as at_the_door:
                if at_the_door.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)

    def kill_gcs(self):
        """What a head that runs out of memory looks like."""
        wanted = f"--gcs_server_port={self.port}".encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            if b"gcs_server" in words[0] and wanted in words:
                os.kill(int(path.parent.name), signal.SIGKILL)
                return
        raise AssertionError("no process is its GCS")

    def close(self):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)


@pytest.fixture
def guarded_head():
    """Its folder's path is short: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        head = GuardedHead(Path(folder))
        try:
            yield head
        finally:
            head.close()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.all_only
def test_a_cluster_that_wants_a_token_gets_the_one_at_hand(
    guarded_head, home, monkeypatch, job, make_lines
):
    """Jobs API and driver: without any token, or a wrong one, the error says so at once.

    No mode need be exported. And when the head dies in the middle of a job, the run says so, with
    its exit code, before Ray ends its process.
    """
    url = f"http://127.0.0.1:{guarded_head.dashboard_port}"
    head = f"127.0.0.1:{guarded_head.port}"
    slow = [line.replace(b'"text": "', b'"text": "[[fake:sleep 0.2]]') for line in make_lines(900)]
    job.write(slow, rows_per_shard=20)

    with pytest.raises(ClusterError, match=r"RAY_AUTH_TOKEN and ~/\.ray/auth_token"):
        RayJobs(url)
    done = job.run("--address", head)
    assert done.returncode == 13
    assert "wants a token" in done.stderr
    assert "InvalidAuthToken" not in done.stderr
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    with pytest.raises(ClusterError, match="nvalid") as caught:
        RayJobs(url)
    assert "f" * 64 not in str(caught.value)
    monkeypatch.delenv("RAY_AUTH_TOKEN")

    save_token(home / ".ray" / "auth_token")
    for address in (url, url.removeprefix("http://")):
        assert RayJobs(address).ids() == []
    # In a process of its own: Ray's core keeps the token that it has read for good.
    asked = subprocess.run(
        job.command("logs", "daily-1", "--address", head),
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 2, asked.stderr
    assert "knows no submission daily-1" in asked.stderr
    command = job.command("run", job.path, "--address", head, "--set", "workers.count=2")
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(job.output.glob("_run/commits/*")):
        assert run.poll() is None
        time.sleep(0.05)
    guarded_head.kill_gcs()
    stdout, stderr = run.communicate(timeout=120)
    told = json.loads(stdout.splitlines()[-1])
    assert (run.returncode, told["exit"], told["error"]) == (13, 13, "ClusterError"), stderr
    assert "has not answered for" in told["message"]
    refused, ended = sorted(job.output.glob("_run/results/*"))
    assert [json.loads(one.read_text())["exit"] for one in (refused, ended)] == [13, 13]
