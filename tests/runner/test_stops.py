"""A stop before any row is out: exit 12, one line of JSON, the epoch's result, no traceback.

Stops while rows are out are in test_run_ray.py; how long a stop takes is measured by
tests/benchmarks/stop_times.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdu_batch.runner.stops import StopRequest

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def started(job):
    """Starts a run of a job that takes a while in every phase."""
    processes = []

    def start(*how):
        lines = [json.dumps({"text": f"{n} [[fake:sleep 0.1]]"}).encode() for n in range(600)]
        job.write(lines, rows_per_shard=20)
        command = job.command("run", job.path, *how)
        running = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
            process_group=0,
        )
        processes.append(running)
        return running

    yield start
    for running in processes:
        if running.poll() is None:
            running.kill()
            running.wait()


def read_until(running, words):
    """What it told on standard error up to a line with these words."""
    told = ""
    while words not in told:
        line = running.stderr.readline()
        assert line, f"it never said {words!r}: {told}"
        told += line
    return told


def text_of(path):
    """What a file of ``/proc`` says; nothing of what has ended meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children_of(pid):
    """Names of a process's own children, by their pid."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    pids = [child for thread in threads for child in text_of(thread / "children").split()]
    return {child: text_of(Path(f"/proc/{child}/comm")).strip() for child in pids}


def check_stopped(running, told, signal_name):
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 12, told + stderr
    assert json.loads(stdout.strip().splitlines()[-1])["exit"] == 12
    assert f"stopped by {signal_name}" in stderr
    assert "Traceback" not in stderr
    assert "SIGTERM received" not in stderr, "Ray's own handler took the signal"


def test_a_stop_in_the_middle_of_planning(started, job):
    """No epoch was taken, so there is nothing to report."""
    running = started("--executor", "inline")
    told = read_until(running, "planning")
    running.send_signal(signal.SIGTERM)
    check_stopped(running, told, "SIGTERM")


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_ray_starts(started, job, kind):
    """Ray defers signals for seconds, and would end the program by exit 15 or 1; no part stays."""
    running = started("--address", "local")
    told = read_until(running, "connecting to Ray")
    deadline_s = time.monotonic() + 60
    while "gcs_server" not in (children := children_of(running.pid)).values():
        assert time.monotonic() < deadline_s, "Ray never began to start"
        time.sleep(0.01)
    running.send_signal(kind)
    check_stopped(running, told, kind.name)
    result = json.loads((job.output / "_run/results/000001.json").read_text())
    assert (result["exit"], result["worker_seconds"]["total_s"]) == (12, 0)
    while any(Path(f"/proc/{child}/comm").exists() for child in children):
        assert time.monotonic() < deadline_s, f"left behind: {children}"
        time.sleep(0.01)


def end_process(pid):
    """As a person does."""
    os.kill(pid, signal.SIGTERM)


def end_process_and_group(pid):
    """As ``timeout`` does."""
    os.kill(pid, signal.SIGTERM)
    os.killpg(pid, signal.SIGTERM)


@pytest.mark.parametrize("end", [end_process, end_process_and_group])
def test_a_stop_while_sessions_open(started, job, end):
    """The account has what the opening took. Ray gets no signal: its end aborts its driver."""
    running = started("--address", "local", "--set", "workers.count=2")
    told = read_until(running, "starting 2 workers")
    end(running.pid)
    check_stopped(running, told, "SIGTERM")
    seconds = json.loads((job.output / "_run/results/000001.json").read_text())["worker_seconds"]
    assert seconds["total_s"] == seconds["session_start_s"]


@pytest.mark.parametrize("kind", [signal.SIGHUP, signal.SIGTERM])
def test_a_stop_while_rows_are_out_inline(started, job, kind):
    """A connection that drops is a stop like any other."""
    running = started("--executor", "inline")
    told = read_until(running, "1 worker")
    running.send_signal(kind)
    check_stopped(running, told, kind.name)
    assert json.loads((job.output / "_run/results/000001.json").read_text())["exit"] == 12


def test_a_run_under_nohup_outlives_its_terminal(job):
    """What is ignored stays ignored."""
    job.write([json.dumps({"text": f"{n} [[fake:sleep 0.1]]"}).encode() for n in range(10)])
    command = ["nohup", *job.command("run", job.path, "--executor", "inline")]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    read_until(running, "1 worker")
    running.send_signal(signal.SIGHUP)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["state"] == "complete"


def test_a_program_that_uses_the_hang_up_keeps_it():
    """A daemon reads its settings anew by it, and may run a job meanwhile."""
    heard = []
    before = signal.signal(signal.SIGHUP, lambda number, _frame: heard.append(number))
    try:
        stop = StopRequest()
        with stop.watch(None, ends_process=False):
            signal.raise_signal(signal.SIGHUP)
        assert heard == [signal.SIGHUP]
        assert not stop.is_requested()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def reading_its_job_file(job, tmp_path):
    """Starts a run that waits for its job file to be written: it knows nothing of its job yet."""
    pipe = tmp_path / "job.pipe"
    os.mkfifo(pipe)
    processes = []

    def start(*how):
        running = subprocess.Popen(
            job.command("run", pipe, *how),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        processes.append(running)
        deadline_s = time.monotonic() + 60
        while True:
            try:
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
                continue
            return running, writer

    yield start
    for running in processes:
        if running.poll() is None:
            running.kill()
            running.wait()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_before_the_job_file_is_read(reading_its_job_file, tmp_path, kind):
    """Told in every place, as any other stop."""
    junit = tmp_path / "junit.xml"
    running, writer = reading_its_job_file("--junit-xml", junit)
    running.send_signal(kind)
    check_stopped(running, "", kind.name)
    os.close(writer)
    assert f"stopped by {kind.name}" in junit.read_text()


def test_an_early_stop_that_a_library_swallows_is_obeyed_once_there_is_a_run():
    """An import may catch whatever comes up in it."""
    code = (
        "import signal; from rdu_batch.runner import early_stops, stops\n"
        "early_stops.listen_early()\n"
        "try: signal.raise_signal(signal.SIGTERM)\n"
        "except Exception: pass\n"
        "stop = stops.StopRequest()\n"
        "with stop.watch(None): print(stop.reason)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "SIGTERM"
