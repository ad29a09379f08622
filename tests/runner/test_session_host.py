"""The watching side of a session process: what each kind of death says, and whose fault it is."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rdu_batch.dataset.planning import plan_of_output
from rdu_batch.errors import ArtifactError, InputError, SessionBroken
from rdu_batch.job.loading import load_spec
from rdu_batch.runner.identity import identify_job
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import Lease, LeaseDone
from rdu_batch.runner.session_folder import SessionFolder, remove_orphans
from rdu_batch.runner.session_host import SessionHost, error_of
from rdu_batch.storage.store import open_store


@pytest.fixture
def context(job):
    """A job whose rows each do one thing to their session; its plan is in the store."""
    texts = [
        *("sound", "[[fake:crash]]", "[[fake:exit 3]]", "[[fake:broken]]", "[[fake:hang]]"),
        *("[[fake:sleep 0.7]]", "sound too"),
    ]
    lines = [json.dumps({"text": text}).encode() for text in texts]
    job.write(lines, rows_per_shard=100, limits={"row_timeout_s": 2.0})
    spec = load_spec(job.path.read_text(), source=str(job.path))
    store = open_store(spec.output.url)
    plan = plan_of_output(store, spec, identify_job(spec).artifact_digest)
    return JobContext(spec, plan.digest, 1)


@pytest.fixture
def host(context):
    host = SessionHost(context)
    host.wait_ready(60.0)
    yield host
    host.close()


def lease(first_row, end_row):
    return Lease(0, 0, first_row, end_row, covers_shard=False)


def test_a_lease_is_answered_and_its_segment_is_stored(host, job):
    """The child does the whole lease; the answer has only counts."""
    answer = host.run(lease(0, 1))
    assert isinstance(answer, LeaseDone)
    assert (answer.first_row, answer.end_row, answer.totals.predictions) == (0, 1, 1)
    assert len(list(job.output.glob("_run/segments/00000/*.seg"))) == 1


@pytest.mark.parametrize(
    ("row", "words", "timed_out"),
    [
        (1, "signal SIGSEGV", False),
        (2, "exit code 3", False),
        (3, "session to break", False),
        (4, "took longer than 2 s", True),
    ],
)
def test_a_death_names_the_row_in_progress_and_how(host, row, words, timed_out):
    """A sound row before it is not blamed."""
    with pytest.raises(SessionBroken, match=words) as caught:
        host.run(lease(row, row + 1) if row > 1 else lease(0, 7))
    assert (caught.value.row, caught.value.timed_out) == (row, timed_out)


def test_the_clock_of_a_row_stops_with_the_row(context, tmp_path, monkeypatch):
    """Storing a lease's outcomes may take longer than a row may: that is no row's fault."""
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import time\n"
        "from rdu_batch.storage.local_store import LocalStore\n"
        "put_file = LocalStore.put_file\n"
        "def slow_put_file(self, *arguments):\n"
        "    time.sleep(4.0)\n"
        "    put_file(self, *arguments)\n"
        "LocalStore.put_file = slow_put_file\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(slow))
    host = SessionHost(context)
    try:
        host.wait_ready(60.0)
        assert host.run(lease(0, 1)).totals.rows == 1
    finally:
        host.close()


def test_an_error_that_ends_the_job_keeps_its_class(context, job):
    """A changed input is exit 4 wherever it is found."""
    rows = (job.folder / "rows.jsonl").read_bytes()
    (job.folder / "rows.jsonl").write_bytes(rows.replace(b"sound too", b"sound two"))
    host = SessionHost(context)
    try:
        host.wait_ready(60.0)
        with pytest.raises(InputError, match="changed since the plan"):
            host.run(lease(0, 1))
    finally:
        host.close()


def test_errors_of_other_processes_are_made_again_by_class():
    """Ours that end the job keep their class; the unforeseen is the session's, with a trace."""
    assert isinstance(error_of({"kind": "ArtifactError", "message": "m"}), ArtifactError)
    for kind in ("RowError", "ZeroDivisionError", "Exception", "annotations"):
        error = error_of({"kind": kind, "message": "m", "traceback": "the trace", "row": 3})
        assert isinstance(error, SessionBroken)
        assert (str(error), error.row) == ("the trace", 3)


def test_the_child_ends_with_its_parent(context, tmp_path):
    """SIGKILL of the watching process leaves no session behind."""
    context_file = tmp_path / "context.json"
    context_file.write_text(context.to_json())
    program = (
        "import sys, os, signal\n"
        "from rdu_batch.runner.job_context import JobContext\n"
        "from rdu_batch.runner.session_host import SessionHost\n"
        f"host = SessionHost(JobContext.from_json(open({str(context_file)!r}).read()))\n"
        "host.wait_ready(60.0)\n"
        "print(host.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    try:
        child = os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        return
    ended, _, _ = select.select([child], [], [], 10.0)
    os.close(child)
    assert ended


def test_the_folder_of_a_killed_owner_is_removed_and_that_of_a_living_one_is_not(
    tmp_path, monkeypatch
):
    """Whoever opens a session next on the machine tidies up."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    program = (
        "import os, signal\n"
        "from rdu_batch.runner.session_folder import SessionFolder\n"
        "print(SessionFolder().path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    orphan = Path(done.stdout.strip())
    assert orphan.parent == tmp_path
    assert orphan.exists()
    living = SessionFolder()
    assert not orphan.exists()
    remove_orphans()
    assert living.path.exists()
    living.remove()
    assert list(tmp_path.iterdir()) == []
