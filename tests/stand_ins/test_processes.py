"""Processes and tiles: a session belongs to one process, and a tile to one session."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

HOLDER = """
import sys, tutorial_program
_, outputs = tutorial_program.traced(sys.argv[1])
tutorial_program.step(outputs)
print("holds its tiles", flush=True)
sys.stdin.read()
"""


@contextmanager
def session_elsewhere(pef: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that ran once and keeps its session."""
    command = [sys.executable, "-c", HOLDER, pef]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        try:
            assert it.stdout is not None
            assert any("holds its tiles" in line for line in it.stdout)
            yield it
        finally:
            it.kill()


def test_a_forked_process_cannot_use_the_session(program: ModuleType, pef: str) -> None:
    """The check comes before anything is computed."""
    _, outputs = program.traced(pef)
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # torch may hang after a fork: without the check that would never end
        try:
            program.step(outputs)
        except RuntimeError as error:
            os._exit(0 if "no fork after the session" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert program.logits_SV(outputs).isfinite().all()


@pytest.mark.parametrize(
    "end", [pytest.param(signal.SIGTERM, marks=pytest.mark.all_only), signal.SIGKILL]
)
def test_tiles_belong_to_one_process_until_it_ends(
    program: ModuleType,
    pef: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: signal.Signals,
) -> None:
    """Six tiles hold one session of four; its end, however it comes, frees them."""
    table = {"folder": str(tmp_path / "tiles"), "count": 6}
    monkeypatch.setenv("SAMBAFLOW_STAND_IN_TILES", json.dumps(table))
    with session_elsewhere(pef) as holder:
        with pytest.raises(RuntimeError, match=r"no free tiles.*2 of 6"):
            program.traced(pef)
        holder.send_signal(end)
        holder.wait(30)
        _, outputs = program.traced(pef)
    assert program.logits_SV(outputs).isfinite().all()
