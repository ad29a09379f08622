"""``rdu-batch status`` of outputs and submissions, at every moment of a job's life.

Ray's Jobs API is a stand-in that says what a test wants; its own client asks it.
"""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rdu_batch.runner.epochs import take_epoch
from rdu_batch.runner.run_layout import driver_epoch
from rdu_batch.runner.submission import SUBMISSION_ID_ENV
from rdu_batch.runner.submitting import OUTPUT
from rdu_batch.storage.store import open_store

COMMAND = [sys.executable, "-m", "rdu_batch"]


@pytest.fixture
def job(tmp_path):
    """Starts the job of a folder, whose rows take a while."""
    rows = [json.dumps({"text": f"{n} [[fake:sleep 0.1]]"}) for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    spec = {
        "version": 1,
        "name": "nightly",
        "input": {"urls": [str(tmp_path / "rows.jsonl")]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "output": {"url": str(tmp_path / "out")},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(spec))
    processes = []

    def start(*words, submission_id=None):
        named = {SUBMISSION_ID_ENV: submission_id} if submission_id else {}
        running = subprocess.Popen(
            [*COMMAND, "run", str(tmp_path / "job.yaml"), "--executor", "inline", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | named,
        )
        processes.append(running)
        return running

    start.output = tmp_path / "out"
    yield start
    for running in processes:
        running.kill()
        running.communicate()


def status(*words):
    done = subprocess.run(
        [*COMMAND, "status", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def ray(tmp_path):
    """A Jobs API that gives its answers one after the other, the last one for ever."""
    answers, log = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.endswith("/logs"):
                told = {"logs": "\n".join(log)}
            elif self.path.startswith("/api/jobs/"):
                told = answers.pop(0) if len(answers) > 1 else answers[0]
            else:
                told = {"version": "4", "ray_version": "2.49.0", "ray_commit": "0"}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def says(*states, code=None, last_line=None):
        common = {
            "type": "SUBMISSION",
            "entrypoint": "run",
            "metadata": {OUTPUT: str(tmp_path / "out")},
            "driver_exit_code": code,
        }
        answers[:] = [{**common, "status": one} for one in states]
        log[:] = [json.dumps(last_line)] if last_line else []
        return ["--address", f"http://127.0.0.1:{server.server_port}"]

    yield says
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_of_a_submission_that_has_not_begun_nobody_made_a_mistake(ray, state):
    """The output is empty yet, as it must be."""
    done, told = status("nightly-1", *ray(state))
    assert (done.returncode, told["state"], told["ending"]) == (0, "empty", None)
    assert f"nightly-1: Ray says {state}" in done.stderr
    assert "its driver has not begun yet" in done.stderr
    assert "output.url" not in done.stderr


def test_a_submission_that_ended_says_how_by_what_its_driver_reported(ray, job):
    """State, exit code and why, from the output's store; of a later one that is not told."""
    assert job("--set", "limits.deadline_s=1", submission_id="nightly-1").wait() == 12
    words = ["nightly-1", *ray("FAILED", code=12)]
    done, told = status(*words, "--exit-code")
    assert (done.returncode, told["exit"]) == (12, 12)
    assert (told["ending"]["state"], told["ending"]["exit"]) == ("stopped", 12)
    assert "ended   stopped, exit 12: stopped by the deadline" in done.stderr
    assert {"throughput", "by_worker"}.isdisjoint(told["last_result"])
    assert len(done.stdout) < 2000
    assert "its driver has not begun yet" in status("nightly-2", *ray("PENDING"))[0].stderr


def test_a_submission_that_took_no_epoch_says_why_by_its_log(ray):
    """Nothing is in its store; --exit-code is the driver's own."""
    last_line = {"exit": 4, "message": "no input\nat all"}
    words = ray("PENDING", "PENDING", "RUNNING", "FAILED", code=4, last_line=last_line)
    done, told = status("nightly-1", *words, "--watch", "--every", "1", "--exit-code")
    assert (done.returncode, told["ending"]["message"]) == (4, "no input\nat all")
    assert "waiting for the submission's driver to begin (Ray says RUNNING)" in done.stderr
    assert done.stderr.splitlines()[-2:] == [
        "  ended   failed, exit 4: no input",
        f"{told['output']}: empty",
    ]


def test_a_submission_that_runs_is_said_to_run(ray, job):
    """Ray knows, where the driver's machine is another one; else its heartbeat alone tells."""
    assert job("--set", "limits.deadline_s=1").wait() == 12
    store = open_store(str(job.output))
    elsewhere = replace(take_epoch(store, 2, 5.0, "nightly-1"), process=None)
    store.put_whole(driver_epoch(2), elsewhere.to_bytes())
    done, _ = status("nightly-1", *ray("RUNNING"))
    assert "running; its heartbeat has moved 0 times" in done.stderr
    done, told = status(job.output)
    assert told["driver"]["state"] == "unknown"
    assert "It lives if that number grows until you look again" in done.stderr
    done, _ = status("nightly-1", *ray("STOPPED"))
    assert "ended   stopped, exit 12: stopped by Ray" in done.stderr


def test_a_run_of_this_machine_is_said_to_run_and_then_to_be_killed(job):
    """The watch ends with the words of a status that is asked for then."""
    running = job()
    while "1 worker" not in running.stderr.readline():
        assert running.poll() is None
    done, told = status(job.output)
    assert told["driver"]["state"] == "running"
    assert "running; its heartbeat has moved 1 time" in done.stderr
    killer = threading.Timer(2, running.kill)
    killer.start()
    done, told = status("--watch", "--every", "1", job.output)
    killer.join()
    assert told["driver"]["state"] == "gone"
    assert done.stderr.count("rows durable (") >= 1
    plain, _ = status(job.output)
    assert done.stderr.endswith(plain.stderr)
    assert "stopped: it was killed; the same command (run or submit) resumes it" in plain.stderr


def test_a_watch_of_an_empty_output_waits_for_a_job(job):
    """It says so, and no percentage of nothing."""
    words = ["status", str(job.output), "--watch", "--every", "1"]
    watching = subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = watching.stderr.readline()
    while "waiting for a job to begin there" not in line:
        assert watching.poll() is None
        assert "%" not in line
        line = watching.stderr.readline()
    assert job("--set", "limits.deadline_s=1").wait() == 12
    stdout, stderr = watching.communicate(timeout=60)
    assert json.loads(stdout)["state"] == "unfinished"
    assert "stopped by the deadline" in stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--watch", "--every", "nan"], "not a finite number"),
        (["--watch", "--every", "0"], "range x>=1"),
        (["--every", "5"], "add --watch"),
    ],
)
def test_how_often_to_look_is_checked(job, words, told):
    """Exit 2, and no traceback."""
    done, document = status(job.output, *words)
    assert (done.returncode, document["exit"]) == (2, 2)
    assert told in done.stderr
