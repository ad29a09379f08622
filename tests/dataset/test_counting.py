"""Who reads how much while the inputs are counted."""

from __future__ import annotations

import itertools
from pathlib import Path

from rdu_batch.dataset import counting
from rdu_batch.dataset.counting import WINDOWS_PER_PART, tasks_of
from rdu_batch.dataset.listing import list_inputs
from rdu_batch.dataset.logical_stream import READ_BYTES, stored_pieces
from rdu_batch.storage.local_store import LocalStore


class CountingStore(LocalStore):
    """Notes the bytes of each ranged read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.reads: list[tuple[int, int]] = []

    def read_range(self, name: str, start: int, end: int) -> bytes:
        self.reads.append((start, end))
        return super().read_range(name, start, end)


def test_each_task_reads_its_share_once_in_large_reads(tmp_path: Path) -> None:
    """No byte twice, none of a neighbour's, and no read of more than 8 MiB."""
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n' * 8_000_000)
    tasks = list(tasks_of(list_inputs([str(tmp_path)])))
    assert len(tasks) == 3
    for task in tasks:
        [part] = task.parts
        assert part.end - part.start <= WINDOWS_PER_PART << 20
        store = CountingStore(str(tmp_path))
        counted = counting._counted(store, part, task, counting.count_range_of(part))
        assert sum(window.num_bytes for window in counted.counted.windows) == part.end - part.start
        reads = sorted(store.reads)
        assert reads[0][0] == part.start
        assert reads[-1][1] == part.end
        assert all(one[1] == other[0] for one, other in itertools.pairwise(reads))
        assert all(end - start <= READ_BYTES for start, end in reads)


def test_small_files_share_a_task(tmp_path: Path) -> None:
    """A million files are no million tasks."""
    for number in range(1100):
        (tmp_path / f"{number:04d}.jsonl").write_bytes(b"{}")
    tasks = list(tasks_of(list_inputs([str(tmp_path)])))
    assert len(tasks) <= 3
    assert [part.file_index for task in tasks for part in task.parts] == list(range(1100))


def test_one_read_is_fetched_ahead_and_no_more(tmp_path: Path) -> None:
    """While a piece is at work the next is on its way; memory holds two."""
    (tmp_path / "a").write_bytes(bytes(100))
    store = CountingStore(str(tmp_path))
    pieces = stored_pieces(store, "a", 0, 100, 10)
    next(pieces)
    next(pieces)
    assert len(store.reads) <= 3
    assert b"".join(pieces) == bytes(80)
