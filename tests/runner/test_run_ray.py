"""A job on a real local Ray: any number of workers, rows that kill their session, stops."""

import json
import os
import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.ray


@pytest.mark.slow
def test_any_number_of_workers_publishes_the_same_bytes(
    job, make_lines, troubled_lines, tmp_path, read_last_json, published_bytes
):
    """1, 2 and 3 workers on Ray, and one process without Ray."""
    job.write([*make_lines(40), *troubled_lines], rows_per_shard=9)
    trees = {}
    for how in ("inline", 1, 2, 3):
        output = tmp_path / f"out-{how}"
        arguments = ["--set", f"output.url={output}"]
        if how == "inline":
            arguments += ["--executor", "inline"]
        else:
            arguments += ["--address", "local", "--set", f"workers.count={how}"]
        if how == 2:
            # A Ray for this run alone stands for a machine that has what its workers ask for.
            arguments += ["--set", "workers.resources={RDU: 1}"]
        done = job.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert read_last_json(done)["workers"] == (1 if how == "inline" else how)
        trees[how] = published_bytes(output)
    assert trees["inline"] == trees[1] == trees[2] == trees[3]
    assert len(trees[1]) > 6


def test_workers_whose_canary_differs_are_refused_and_the_job_stops(job, make_lines):
    """The run was begun by a machine that computes other numbers: exit 10 with the reason."""
    canary = job.output / "_run/canary.json"
    canary.parent.mkdir(parents=True)
    canary.write_text(json.dumps({"version": 1, "canary": "sha256:other"}))
    done = job.write(make_lines(4)).run("--address", "local", "--set", "workers.count=2")
    assert done.returncode == 10
    assert "canary" in done.stderr
    assert "no session starts" in done.stderr
    assert not list(job.output.glob("part-*"))


@pytest.mark.slow
def test_a_cluster_without_room_for_one_worker_is_a_named_failure(job, make_lines):
    """Resources that never come: exit 10 after the start timeout, naming the workers block."""
    workers = {"count": 1, "cpus": 1000}
    job.write(make_lines(4), workers=workers, limits={"start_timeout_s": 2.0})
    done = job.run("--address", "local")
    assert done.returncode == 10
    assert "one worker asks for: CPU 1000 (it has " in done.stderr


def wait_for(condition, timeout_s=60.0):
    """Poll until a condition holds; the test fails if it never does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the awaited state never came"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop", [pytest.param(signal.SIGINT, marks=pytest.mark.all_only), signal.SIGTERM]
)
def test_a_stop_signal_ends_cleanly_and_a_rerun_finishes(
    job, make_lines, tmp_path, read_last_json, published_bytes, stop
):
    """Exit 12 with one JSON line, no traceback; the rerun keeps what was finished."""
    lines = [json.dumps({"id": n, "text": f"{n} [[fake:sleep 0.1]]"}).encode() for n in range(60)]
    job.write(lines, rows_per_shard=20)
    command = job.command("run", job.path, "--address", "local", "--set", "workers.count=2")
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    seen = set()

    def is_known_to_the_driver():
        """Of two workers' leases a third follows only what the driver was told of."""
        seen.update(job.output.glob("_run/segments/*/*.seg"))
        return len(seen) > 2

    wait_for(is_known_to_the_driver)
    running.send_signal(stop)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 12, stderr
    assert json.loads(stdout.strip().splitlines()[-1])["exit"] == 12
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr
    result = json.loads((job.output / "_run/results/000001.json").read_text())
    assert result["exit"] == 12
    # What was finished before the stop came counts as work.
    assert result["worker_seconds"]["prefill_s"] > 0
    done = job.run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    assert read_last_json(done)["rows_resumed"] > 0
    calm = tmp_path / "calm"
    job.run("--executor", "inline", "--set", f"output.url={calm}")
    assert published_bytes(job.output) == published_bytes(calm)


def test_a_second_signal_does_not_wait_for_a_hung_row(job):
    """Without Ray nothing watches a row's time; asking twice ends the run all the same."""
    job.write([b'{"text": "[[fake:hang]]"}'])
    running = subprocess.Popen(
        job.command("run", job.path, "--executor", "inline"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((job.output / "_run/canary.json").exists)
    while running.poll() is None:
        running.send_signal(signal.SIGINT)
        time.sleep(0.2)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 12, stderr
    assert json.loads(stdout.strip().splitlines()[-1])["exit"] == 12
    assert "Traceback" not in stderr


def test_the_deadline_stops_a_run_and_a_rerun_goes_on(job, make_lines, read_last_json):
    """limits.deadline_s is a stop like any other: exit 12."""
    lines = [json.dumps({"text": f"{n} [[fake:sleep 0.2]]"}).encode() for n in range(30)]
    done = job.write(lines, limits={"deadline_s": 2.0}).run("--executor", "inline")
    assert done.returncode == 12
    assert "deadline" in done.stderr
    result = json.loads((job.output / "_run/results/000001.json").read_text())
    seconds = result["worker_seconds"]
    assert seconds["prefill_s"] > seconds["total_s"] / 2  # Where the fake session sleeps.
    done = job.run("--executor", "inline", "--set", "limits.deadline_s=null")
    assert (done.returncode, read_last_json(done)["rows"]) == (0, 30)
