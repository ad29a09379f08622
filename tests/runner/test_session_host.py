"""The watching side of a session process: what each kind of death says, and whose fault it is."""

import json
import os
import re
import resource
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
from rdu_batch.job.records import Row
from rdu_batch.runner.identity import identify_job
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import Lease, LeaseDone
from rdu_batch.runner.process_memory import parse_status, read_memory
from rdu_batch.runner.row_memory import RowMark, RowMemory
from rdu_batch.runner.session_folder import SessionFolder, remove_orphans
from rdu_batch.runner.session_host import SessionHost, error_of
from rdu_batch.runner.time_spent import TimeSpent
from rdu_batch.storage.store import open_store


@pytest.fixture
def context(job):
    """A job whose rows each do one thing to their session; its plan is in the store."""
    texts = [
        *("sound", "[[fake:crash]]", "[[fake:exit 3]]", "[[fake:broken]]", "[[fake:hang]]"),
        *("[[fake:sleep 0.7]]", "sound too"),
    ]
    lines = [json.dumps({"text": text}).encode() for text in texts]
    return context_of(job.write(lines, rows_per_shard=100, limits={"row_timeout_s": 2.0}))


def context_of(job):
    """The spec of a job file with its plan in the store, as a driver hands it to its workers."""
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


def status_of(pid):
    return Path(f"/proc/{pid}/status").read_text()


def test_the_session_is_the_first_to_be_killed_when_memory_runs_out(host):
    """And the process that watches it is no candidate before it."""
    assert Path(f"/proc/{host.pid}/oom_score_adj").read_text().strip() == "1000"
    assert int(Path("/proc/self/oom_score_adj").read_text()) < 1000


def test_a_watcher_that_was_made_a_candidate_becomes_less_of_one():
    """As Ray makes its own workers."""
    program = (
        "from pathlib import Path\n"
        "from rdu_batch.runner.process_memory import outlive_the_session\n"
        "score = Path('/proc/self/oom_score_adj')\n"
        "outlive_the_session()\n"
        "print(score.read_text().strip())\n"
        "score.write_text('1000')\n"
        "outlive_the_session()\n"
        "print(score.read_text().strip())\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before == int(Path("/proc/self/oom_score_adj").read_text())
    assert after < 1000


def test_memory_of_its_own_is_not_address_space_nor_mapped_files(tmp_path):
    """What counts is what the process wrote: against the kernel's own sums."""
    (tmp_path / "weights").write_bytes(b"w" * (64 << 20))
    program = (
        "import mmap, sys\n"
        "reserved = mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE)\n"
        "file = open(sys.argv[1], 'rb')\n"
        "weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(weights[i] for i in range(0, len(weights), 4096))\n"
        "print('mapped', flush=True)\n"
        "sys.stdin.readline()\n"
        "own = b'x' * (50 << 20)\n"
        "print('written', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "weights")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        mapped = read_memory(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        written = read_memory(process.pid)
        process.stdin.close()
    assert mapped.own_bytes < 40 << 20
    assert mapped.peak_bytes > 64 << 20
    assert 50 << 20 <= written.own_bytes - mapped.own_bytes < 60 << 20
    assert read_memory(process.pid) is None


def test_the_status_of_a_dead_process_says_nothing_and_swap_counts():
    """A zombie has no memory; memory that was swapped out is still its own."""
    assert parse_status("Name:\tx\nState:\tZ (zombie)\n") is None
    found = parse_status("VmHWM:\t  20 kB\nRssAnon:\t  3 kB\nRssFile:\t 9 kB\nVmSwap:\t 4 kB\n")
    assert (found.own_bytes, found.peak_bytes) == (7 * 1024, 20 * 1024)


def test_no_memory_left_in_the_middle_of_a_row_is_that_rows_doing(job):
    """Python says MemoryError where the address space itself is limited."""
    lines = [json.dumps({"text": text}).encode() for text in ("sound", "[[fake:eat-memory]]")]
    context = context_of(job.write(lines, output={"url": str(job.folder / "other")}))
    host = SessionHost(context)
    try:
        host.wait_ready(60.0)
        (size,) = re.findall(r"VmSize:\s+(\d+) kB", status_of(host.pid))
        limit = int(size) * 1024 + (300 << 20)
        resource.prlimit(host.pid, resource.RLIMIT_AS, (limit, limit))
        with pytest.raises(SessionBroken, match="MemoryError") as caught:
            host.run(lease(0, 2))
        assert caught.value.row == 1
        assert host.death.row.line == 2
    finally:
        host.close()


@pytest.mark.parametrize(("row", "ended_by"), [(1, "signal SIGSEGV"), (2, "exit code 3")])
def test_a_death_is_kept_with_what_the_kernel_counted(host, row, ended_by):
    """Killing what has already ended changes nothing of how it ended."""
    with pytest.raises(SessionBroken):
        host.run(lease(row, row + 1))
    death = host.death
    assert death.ended_by == ended_by
    assert (death.signal, death.exit_code) == (("SIGSEGV", None) if row == 1 else (None, 3))
    assert (death.row.ordinal, death.row.path, death.row.line) == (row, "rows.jsonl", row + 1)
    assert death.pid == host.pid
    assert 10 << 20 < death.peak_memory_bytes < 4 << 30


def test_an_error_of_the_session_is_kept_with_its_trace(host):
    """It has neither a signal nor an exit code: it answered, and was ended."""
    with pytest.raises(SessionBroken):
        host.run(lease(3, 4))
    assert (host.death.signal, host.death.exit_code) == (None, None)
    assert "told the fake session to break" in host.death.error
    assert "Traceback" in host.death.stderr


def test_a_row_that_ends_at_the_last_moment_is_not_blamed(host, monkeypatch):
    """Its outcome is in the spool; the row after it had just begun."""
    first_row = RowMark(5, 0, 6, "rows.jsonl", 0.0)
    monkeypatch.setattr(host, "_late_row", lambda: first_row)
    with pytest.raises(SessionBroken, match="took longer") as caught:
        host.run(lease(4, 5))
    assert (caught.value.row, caught.value.timed_out) == (None, False)
    assert host.death.row.ordinal == 4


def test_a_path_of_any_length_and_language_is_marked(tmp_path):
    """Cut short at a page, without a broken end that cannot be written as text."""
    memory = RowMemory.create(tmp_path / "row")
    assert memory.read() is None
    for path in ("a.jsonl", "\u00e4/\u65e5\u672c.jsonl", "x" * 5000, "\u65e5" * 3000, ""):
        memory.begin(Row(7, 3, 9, path, 0, b"secret"))
        mark = memory.read()
        assert (mark.ordinal, mark.file_index, mark.line) == (7, 3, 9)
        assert mark.path.rstrip("\ufffd") == path[: len(mark.path.rstrip("\ufffd"))]
        assert len(mark.path.encode()) >= min(len(path.encode()), 4000)
        spent = TimeSpent(0.5, 0.25, 2.0 * len(path), 0.125)
        memory.end(spent)
        assert memory.read() is None
        assert memory.spent() == spent
    assert b"secret" not in (tmp_path / "row").read_bytes()
    memory.close()
