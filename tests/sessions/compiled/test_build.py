"""Compiling the graphs: what happens when one of the two processes fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rdu_batch.sessions.inductor.build import _compile_error, _watch
from rdu_batch.sessions.inductor.geometry import cache_length_for


def started(code: str) -> subprocess.Popen[str]:
    """A Python process as ``compile_graphs`` starts them."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.timeout(60)
def test_the_first_failure_ends_the_other_process_and_what_it_started(order: int) -> None:
    """A compiler of the other one would hold its pipes open for ten minutes."""
    sleep = "import subprocess; subprocess.run(['sleep', '600'])"
    named = [("failing", started("raise SystemExit('why')")), ("sleeping", started(sleep))]
    failed, errors = _watch(dict(named[::order]), print)
    assert failed == "failing"
    assert "why" in errors["failing"]
    assert dict(named)["sleeping"].returncode == -9


def test_the_compiler_is_blamed_only_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the process said is in the message."""
    for compiler, blamed in ((sys.executable, False), ("/nowhere/g++", True)):
        monkeypatch.setenv("CXX", compiler)
        message = str(_compile_error("decode", 3, "out of memory"))
        assert "out of memory" in message
        assert ("there is no /nowhere/g++ here" in message) == blamed


@pytest.mark.parametrize(
    ("max_seq_length", "chunk", "length"),
    [(512, 64, 576), (48, 16, 64), (40, 16, 64), (33, 16, 48), (17, 16, 32), (2, 2, 4)],
)
def test_the_cache_holds_whole_chunks_and_a_position_more_than_any_call_attends_to(
    max_seq_length: int, chunk: int, length: int
) -> None:
    """Prefill of each prompt ends at a whole chunk, decode at max_seq_length at most."""
    assert cache_length_for(max_seq_length, chunk) == length
    ends = [-(-prompt // chunk) * chunk for prompt in range(1, max_seq_length)]
    assert max(*ends, max_seq_length) < length
    assert length % chunk == 0
