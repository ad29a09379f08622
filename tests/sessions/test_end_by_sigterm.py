"""A session that holds a device ends by SIGTERM as Python does, and soon."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A runtime that gives its device back at exit, beside objects that only a collection takes away.
PROGRAM = """
import atexit, signal, sys
from rdu_batch.sessions.graph_session import end_by_exit_on_sigterm

class Loop:
    def __init__(self):
        self.itself = self

    def __del__(self, say=print):
        say("collected", flush=True)

loop = Loop()
atexit.register(print, "given back", flush=True)
end_by_exit_on_sigterm()
print("ready", flush=True)
sys.stdin.read()
sys.exit(0)
"""


@pytest.mark.parametrize(
    ("is_asked", "code", "said"),
    [(True, 128 + signal.SIGTERM, "given back\n"), (False, 0, "given back\ncollected\n")],
)
def test_a_session_that_is_asked_to_end_gives_back_and_collects_nothing(
    is_asked: bool, code: int, said: str
) -> None:
    """With torch loaded a collection takes longer than it is given; who ends by itself has time."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if is_asked:
                process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=60)[0] == said
            assert process.returncode == code
        finally:
            process.kill()
