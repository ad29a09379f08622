"""Two drivers on one output, as real processes: one runs, the other ends with 14."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from rdu_batch.runner.verify import verify_output
from rdu_batch.storage.store import open_store

#: Short, so that a dead driver is taken over in seconds.
ENVIRONMENT = {**os.environ, "RDU_BATCH_HEARTBEAT_S": "0.25"}
INLINE = ("--executor", "inline")


def start(job, *arguments):
    return subprocess.Popen(
        job.command("run", job.path, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


@pytest.fixture
def drivers():
    """Processes of a test; none of them outlives it."""
    started = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, timeout_s=60.0):
    """Poll until a condition holds; the test fails if it never does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the awaited state never came"
        time.sleep(0.02)


def wait_for_object(driver, path):
    """Poll until a driver has written something; the test fails if the driver ends before."""
    wait_for(lambda: path.exists() or driver.poll() is not None)
    assert path.exists(), driver.communicate()


def tree(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def last_line(stdout):
    return json.loads(stdout.strip().splitlines()[-1])


def slow_lines(num_rows, seconds):
    return [json.dumps({"text": f"{n} [[fake:sleep {seconds}]]"}).encode() for n in range(num_rows)]


def status(job):
    done = subprocess.run(
        job.command("status", job.output), capture_output=True, text=True, check=True
    )
    return last_line(done.stdout), done.stderr


def test_a_second_driver_on_a_live_job_exits_14_and_names_the_owner(job, drivers, make_lines):
    """It changes nothing; status tells who is at it; when that one is killed, the next goes on."""
    job.write([*make_lines(4), *slow_lines(1, 600)], rows_per_shard=4)
    drivers.append(start(job, *INLINE))
    wait_for_object(drivers[0], job.output / "part-00000-of-00002.jsonl")
    done = job.run(*INLINE, env=ENVIRONMENT)
    assert done.returncode == 14, done.stderr
    assert last_line(done.stdout)["error"] == "OutputOwned"
    pid = drivers[0].pid
    for words in ("epoch 1", socket.gethostname(), f"pid {pid}", "Wait for its end"):
        assert words in last_line(done.stdout)["message"]
    assert "watching" in done.stderr
    assert not (job.output / "_run/drivers/000002.json").exists()
    assert list((job.output / "_run").glob("results/*")) == []

    document, text = status(job)
    assert (document["driver"]["state"], document["driver"]["pid"]) == ("running", pid)
    assert document["driver"]["heartbeats"] >= 1
    assert f"pid {pid}" in text
    assert "its heartbeat has moved" in text

    drivers[0].kill()
    drivers[0].wait()
    document, text = status(job)
    assert document["driver"]["state"] == "gone"
    assert "stopped: it was killed" in text
    drivers.append(start(job, *INLINE))
    wait_for_object(drivers[1], job.output / "_run/drivers/000002.heartbeat.json")
    while drivers[1].poll() is None:
        drivers[1].send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, stderr = drivers[1].communicate()
    assert drivers[1].returncode == 12, stderr
    assert "was killed; going on" in stderr
    assert "watching" not in stderr
    assert status(job)[0]["driver"]["state"] == "ended"


def test_of_two_drivers_started_at_once_exactly_one_runs(job, drivers):
    """Whichever it is, the other ends with 14, and the output is sound."""
    job.write(slow_lines(6, 1), rows_per_shard=3)
    drivers += [start(job, *INLINE), start(job, *INLINE)]
    ends = [driver.communicate(timeout=120) for driver in drivers]
    assert sorted(driver.returncode for driver in drivers) == [0, 14], ends
    assert list(tree(job.output / "_run/drivers")) == ["000001.heartbeat.json", "000001.json"]
    assert verify_output(open_store(str(job.output))).is_sound


def is_asleep(process):
    """Whether the main thread of a process sleeps inside the fake session."""
    return "nanosleep" in Path(f"/proc/{process.pid}/wchan").read_text()


def test_a_paused_driver_that_wakes_up_after_a_takeover_exits_14_and_changes_nothing(
    job, drivers, make_lines
):
    """Its own last heartbeat may have been on its way; nothing else may differ."""
    job.write([*make_lines(4), *slow_lines(1, 4)], rows_per_shard=4)
    paused = start(job, *INLINE)
    drivers.append(paused)
    wait_for_object(paused, job.output / "part-00000-of-00002.jsonl")
    wait_for(lambda: is_asleep(paused))
    paused.send_signal(signal.SIGSTOP)

    # A stop while it is not known yet whether the other lives: at once, and nothing is taken.
    watching = start(job, *INLINE)
    drivers.append(watching)
    for line in watching.stderr:
        if "watching" in line:
            break
    watching.send_signal(signal.SIGINT)
    stdout, _ = watching.communicate(timeout=60)
    assert (watching.returncode, last_line(stdout)["exit"]) == (12, 12)
    assert not (job.output / "_run/drivers/000002.json").exists()

    done = job.run(*INLINE, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "stands still; taking over" in done.stderr
    before = tree(job.output)
    paused.send_signal(signal.SIGCONT)
    stdout, stderr = paused.communicate(timeout=60)
    assert (paused.returncode, last_line(stdout)["exit"]) == (14, 14), stderr
    assert "fenced: epoch 2" in last_line(stdout)["message"]
    assert "Traceback" not in stderr
    after = tree(job.output)
    own_heartbeat = "_run/drivers/000001.heartbeat.json"
    assert {**after, own_heartbeat: ""} == {**before, own_heartbeat: ""}
    assert "_run/results/000001.json" not in after
    assert verify_output(open_store(str(job.output))).is_sound


def processes_of(output):
    """Session processes that still work on an output."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            if b"rdu_batch.runner.session_process" in words:
                found += [path.parent.name] * (
                    str(output) in Path(words[words.index(b"-m") + 2].decode()).read_text()
                )
        except OSError:
            continue
    return found


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.all_only
def test_a_paused_driver_on_ray_that_wakes_up_ends_its_workers(job, drivers, make_lines):
    """Its workers, which ran on, stored nothing either."""
    job.write([*make_lines(4), *slow_lines(6, 1)], rows_per_shard=4)
    paused = start(job, "--address", "local", "--set", "workers.count=1")
    drivers.append(paused)
    wait_for_object(paused, job.output / "part-00000-of-00003.jsonl")
    paused.send_signal(signal.SIGSTOP)
    done = job.run(*INLINE, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    before = tree(job.output)
    assert processes_of(job.output)
    paused.send_signal(signal.SIGCONT)
    stdout, stderr = paused.communicate(timeout=60)
    assert (paused.returncode, last_line(stdout)["exit"]) == (14, 14), stderr
    assert "Traceback" not in stderr
    own_heartbeat = "_run/drivers/000001.heartbeat.json"
    assert {**tree(job.output), own_heartbeat: ""} == {**before, own_heartbeat: ""}
    wait_for(lambda: not processes_of(job.output))
