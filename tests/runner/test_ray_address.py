"""Where Ray is: what answers, what is gone, and who else is connected."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rdu_batch.errors import ClusterError
from rdu_batch.runner.ray_address import LOST_AFTER_S, Door, Pulse, is_http, knock


@pytest.fixture
def free_address():
    """Nothing listens there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.fixture
def web_address():
    """A web server, as a dashboard is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_dead_address_and_a_web_server_are_told_from_a_head(free_address, web_address):
    """Within milliseconds; a head itself is asked in the tests of tokens and of the cluster."""
    assert (knock(free_address), is_http(free_address)) == (Door.SILENT, False)
    assert (knock(web_address), is_http(web_address)) == (Door.ELSE, True)


class Head:
    """Answers as it is told, each time it is asked; time passes by waiting."""

    def __init__(self, *doors):
        self.doors, self.now_s, self.is_stopping = list(doors), 0.0, False

    def ask(self, _address):
        return self.doors.pop(0) if len(self.doors) > 1 else self.doors[0]

    def sleep(self, seconds):
        self.now_s += seconds

    def pulse(self, address="head:6379"):
        return Pulse(
            address,
            is_stopping=lambda: self.is_stopping,
            ask=self.ask,
            now_s=lambda: self.now_s,
            sleep=self.sleep,
        )


@pytest.mark.parametrize("door", [Door.OPEN, Door.WANTS_TOKEN, Door.UNKNOWN])
def test_a_head_that_answers_costs_no_time(door):
    """Whatever it answers."""
    head = Head(door)
    head.pulse().check()
    assert head.now_s == 0


def test_a_head_that_was_silent_for_a_while_is_waited_for():
    """One that is replaced in time costs the job nothing."""
    head = Head(*[Door.SILENT] * 20, Door.OPEN)
    head.pulse().check()
    assert 0 < head.now_s < LOST_AFTER_S


def test_a_head_that_stays_silent_ends_the_job_before_ray_ends_the_process():
    """Exit 13, and what to do next."""
    head = Head(Door.SILENT)
    with pytest.raises(ClusterError, match=r"head:6379.*run the same command again") as caught:
        head.pulse().check()
    assert caught.value.exit_code == 13
    assert LOST_AFTER_S <= head.now_s < 45


def test_a_stop_is_heard_while_a_head_is_silent_and_a_proxy_is_not_asked():
    """The driver looks at the stop itself."""
    head = Head(Door.SILENT)
    head.is_stopping = True
    head.pulse().check()
    Head(Door.SILENT).pulse(address=None).check()


@pytest.fixture
def stale(free_address, monkeypatch):
    """A machine on which a head was started last that has died since; its port."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    # A short path: the sockets of a Ray that is started lie in it.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text(free_address)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield free_address.partition(":")[2]


def ask_for_auto(job, verb):
    """A verb of the driver or of the Jobs API, with ``--address auto``."""
    target = job.path if verb == "run" else "some-job-1"
    return subprocess.run(
        job.command(verb, target, "--address", "auto"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("verb", ["run", "wait"])
def test_a_head_that_has_died_is_said_at_once_where_it_was_asked_for(stale, job, make_lines, verb):
    """Ray itself would try it for many minutes."""
    job.write(make_lines(3))
    done = ask_for_auto(job, verb)
    assert done.returncode == 13, done.stderr
    assert f":{stale}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["run", "wait"])
def test_the_address_that_ray_tells_its_drivers_goes_before_the_last_one_here(
    stale, job, make_lines, monkeypatch, verb
):
    """Also where `auto` is asked for, as a submission's driver does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", told)
    job.write(make_lines(3))
    done = ask_for_auto(job, verb)
    assert done.returncode == 13, done.stderr
    assert told in done.stderr
    assert f":{stale}" not in done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_without_an_address_starts_a_ray_where_the_last_one_has_died(
    stale, job, make_lines, read_last_json
):
    """And says so."""
    done = job.write(make_lines(3)).run()
    assert done.returncode == 0, done.stderr
    assert f":{stale}, started here last, is gone; starting one for this job" in done.stderr
    assert read_last_json(done)["rows"] == 3


CALLER = """
import json, sys, threading
import ray
import rdu_batch
from rdu_batch.errors import ClusterError
from rdu_batch.runner import ray_connection

job = sys.argv[1]
ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
kept = ray.put(42)
told = []
try:
    rdu_batch.run(job, address="local")
except ClusterError as error:
    told.append(str(error))
told.append(ray.get(kept))
ray.shutdown()

ray_connection._held.acquire()
try:
    rdu_batch.run(job, address="local")
except ClusterError as error:
    told.append(str(error))
ray_connection._held.release()
told.append(rdu_batch.run(job, address="local").rows)
told.append(rdu_batch.run(job, address="local").state)
print(json.dumps(told))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_caller_s_own_ray_is_left_alone_and_one_run_at_a_time_has_one(job, make_lines):
    """In one process: errors of ours, the caller's objects live on, and then it works."""
    job.write(make_lines(5))
    done = subprocess.run(
        [sys.executable, "-c", CALLER, str(job.path)],
        capture_output=True,
        text=True,
        check=False,
        env={name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"},
    )
    assert done.returncode == 0, done.stderr
    connected, kept, second, rows, state = json.loads(done.stdout.splitlines()[-1])
    assert "connected to Ray already" in connected
    assert "one after the other" in second
    assert (kept, rows, state) == (42, 5, "already complete")
