"""Whether a process is gone: known for sure, or not claimed."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from rdu_batch.runner.process_mark import ProcessMark, is_alive, is_gone, mark_of_this_process

SAY_MARK = (
    "import json, sys; from rdu_batch.runner.process_mark import mark_of_this_process as mark; "
    "print(json.dumps(mark().to_json()), flush=True); sys.stdin.read()"
)


@pytest.fixture
def child():
    """Another process that waits, and its mark."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SAY_MARK], text=True, **pipes) as process:
        document = json.loads(process.stdout.readline())
        yield process, ProcessMark.from_json(document)
        process.kill()


def test_a_process_that_lives_is_not_gone(child):
    """Neither this one nor another."""
    assert not is_gone(mark_of_this_process())
    assert not is_gone(child[1])
    assert is_alive(mark_of_this_process())
    assert is_alive(child[1])


def test_a_process_that_ended_is_gone(child):
    """Already before its parent took note of its end: what is left then does nothing any more."""
    process, mark = child
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(mark)
    assert not is_alive(mark)
    process.wait()
    assert is_gone(mark)


def test_a_number_that_was_given_again_is_another_process(child):
    """The start time tells."""
    _, mark = child
    assert is_gone(replace(mark, started_ticks=mark.started_ticks - 1))
    assert not is_alive(replace(mark, started_ticks=mark.started_ticks - 1))


@pytest.mark.parametrize("place", [{"boot_id": "other"}, {"namespaces": "pid:[1]"}])
def test_a_process_of_another_machine_or_container_is_never_called_gone(child, place):
    """Its number means nothing here."""
    process, mark = child
    assert not is_alive(replace(mark, **place))
    process.kill()
    process.wait()
    assert not is_gone(replace(mark, **place))


def test_a_mark_survives_its_json():
    """And what is none is not read as one."""
    mark = mark_of_this_process()
    assert ProcessMark.from_json(mark.to_json()) == mark
    for document in (None, {}, {"boot_id": "x"}, [1], {**mark.to_json(), "pid": "many"}):
        assert ProcessMark.from_json(document) is None
