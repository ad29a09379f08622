"""Real processes that catch SIGTERM, do not, or do not end by it, and their parents' deaths."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdu_batch.runner.session_ending import end_process

#: A session that gives its device back, one that has none, and one that hangs when it is asked.
GIVES_BACK = """
import pathlib, signal, sys
def give_back(*_):
    pathlib.Path(sys.argv[1]).write_text("given back")
    raise SystemExit(3)
signal.signal(signal.SIGTERM, give_back)
"""
HAS_NONE = ""
HANGS = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[1]).write_text("asked"))
"""
SLEEPS = """
import time
print("up", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def process(tmp_path):
    """Starts a process of the given code, and waits until it is up."""
    started = []

    def start(code):
        command = [sys.executable, "-c", code + SLEEPS, str(tmp_path / "said")]
        one = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(one)
        assert one.stdout.readline() == b"up\n"
        return one

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()


def test_a_session_with_a_device_is_asked_and_gives_it_back(process, tmp_path):
    """Its own exit status stands."""
    session = process(GIVES_BACK)
    assert end_process(session.pid) is True
    assert session.wait() == 3
    assert (tmp_path / "said").read_text() == "given back"


def test_a_session_without_a_device_is_killed_at_once(process):
    """Nobody waits for it."""
    session = process(HAS_NONE)
    assert end_process(session.pid) is False
    assert session.wait() == -signal.SIGKILL


def test_a_session_that_does_not_end_when_asked_is_killed(process, tmp_path):
    """It was asked first."""
    session = process(HANGS)
    assert end_process(session.pid) is True
    assert session.wait() == -signal.SIGKILL
    assert (tmp_path / "said").read_text() == "asked"


def test_a_session_that_ended_by_itself_keeps_its_status(process):
    """A status not waited for is still there."""
    session = process(GIVES_BACK)
    session.send_signal(signal.SIGUSR1)
    os.waitid(os.P_PID, session.pid, os.WEXITED | os.WNOWAIT)
    assert end_process(session.pid) is False
    assert session.wait() == -signal.SIGUSR1


@pytest.mark.parametrize(
    ("code", "said"), [(GIVES_BACK, "given back"), (HANGS, "asked"), (HAS_NONE, None)]
)
def test_nothing_outlives_the_parent(tmp_path, code, said):
    """The parent is killed; what has a device is asked before it dies."""
    session = f"""
{code}
import os, sys
from rdu_batch.runner.session_ending import die_with_parent, give_device_back_with_parent
die_with_parent(int(sys.argv[2]))
give_device_back_with_parent(int(sys.argv[2]))
print(os.getpid(), flush=True)
{SLEEPS}
"""
    parent_code = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2], str(os.getpid())])
time.sleep(600)
"""
    said_file = tmp_path / "said"
    command = [sys.executable, "-c", parent_code, session, str(said_file)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    # The pipe's end comes when its last writer, the session, is gone.
    assert parent.stdout.read() in (b"", b"up\n")
    parent.stdout.close()
    deadline_s = time.monotonic() + 10
    while not _is_gone(pid):
        assert time.monotonic() < deadline_s, "the session lives on"
        time.sleep(0.01)
    assert (said_file.read_text() if said_file.exists() else None) == said


def _is_gone(pid):
    """Or waits to be waited for: in a container there may be nobody who does that for orphans."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"
