"""Counting on a real Ray: the same index as here, and none is reached for little."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rdu_batch.dataset.counting import count_here
from rdu_batch.dataset.indexing import Tasks, index_files
from rdu_batch.dataset.line_index import LongestRows
from rdu_batch.dataset.listing import list_inputs
from rdu_batch.job.spec import JobSpec
from rdu_batch.report.progress import Silent
from rdu_batch.runner.ray_counting import ray_counting
from rdu_batch.runner.stops import StopRequest


def spec_of(folder: Path) -> JobSpec:
    """A job over a folder."""
    values = {
        "version": 1,
        "name": "test",
        "input": {"urls": [str(folder)]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "output": {"url": str(folder / "out")},
    }
    return JobSpec.model_validate_json(json.dumps(values))


def write_files(folder: Path) -> Tasks:
    """Tasks over one file of several parts and one small one; windows of 64 bytes."""
    (folder / "a.jsonl").write_bytes(b'{"text": "some words"}\n' * 1000)
    (folder / "b.jsonl").write_bytes(b"{}\n\n{}")
    return Tasks(list_inputs([str(folder)]), window_bytes=64)


def test_little_is_counted_here(tmp_path: Path) -> None:
    """No cluster is reached: the address leads nowhere."""
    tasks = write_files(tmp_path)
    counting = ray_counting(
        spec_of(tmp_path), "127.0.0.1:1", StopRequest(), Silent(), count_here, min_tasks=10_000
    )
    assert list(index_files(tasks, LongestRows(), counting)) == list(
        index_files(tasks, LongestRows())
    )


@pytest.mark.ray
def test_ray_tasks_give_the_index_that_one_process_gives(tmp_path: Path) -> None:
    """Byte for byte, longest rows too."""
    tasks = write_files(tmp_path)
    here, there = LongestRows(), LongestRows()
    counting = ray_counting(
        spec_of(tmp_path), "local", StopRequest(), Silent(), count_here, min_tasks=2
    )
    found = [file.to_line() for file in index_files(tasks, there, counting)]
    assert found == [file.to_line() for file in index_files(tasks, here)]
    assert here.rows() == there.rows()
