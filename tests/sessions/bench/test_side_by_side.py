"""Processes with one session each: what they answer, and that none is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdu_batch.errors import SessionBroken
from rdu_batch.sessions.bench.settings import BenchSettings
from rdu_batch.sessions.bench.side_by_side import session_process


def test_a_process_that_fails_says_why_and_is_gone(tmp_path: Path) -> None:
    """There is no artifact: the error is the child's own, and no process stays."""
    before = _children()
    with session_process(BenchSettings(str(tmp_path), threads=1)) as process:
        assert process.hello["import_s"] > 0
        assert process.hello["private_bytes"] > 0
        assert len(_children() - before) == 1
        with pytest.raises(SessionBroken, match=r"no artifact\.json here"):
            process.ask("open")
    assert _children() == before


def test_a_process_ends_with_what_its_starter_raises(tmp_path: Path) -> None:
    """Even one that still waits for a line."""
    before = _children()
    with pytest.raises(KeyError), session_process(BenchSettings(str(tmp_path), threads=1)):
        raise KeyError
    assert _children() == before


def _children() -> set[int]:
    """Processes whose parent is this one, as the kernel lists them; zombies count."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
