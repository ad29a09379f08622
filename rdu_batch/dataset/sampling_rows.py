"""A few rows of a plan, spread over all of it, the same ones each time.

Promises: rows are chosen by the number of rows and a seed text alone; each tenth (or hundredth) of
the rows gives its share, so that a sorted input is not misjudged; what is read is bounded by the
size of the sample: of a large file that no run has cut anew yet (``recut.py``) only rows near its
start are drawn, and kept apart. Does not: judge rows.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from rdu_batch.dataset.reader import RowReader
from rdu_batch.dataset.recut import is_recut
from rdu_batch.job.plan import MAX_DECODED_BYTES
from rdu_batch.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rdu_batch.dataset.planning import PlannedJob
    from rdu_batch.job.plan import InputFile
    from rdu_batch.job.records import Row


def sampled_ordinals(num_rows: int, size: int, seed: str) -> list[int]:
    """Ordinals of a sample, ascending: one from each of ``size`` equal parts; all if no more.

    Args:
        num_rows: of the plan.
        size: rows to choose.
        seed: any text, such as the job's digest.
    """
    if size >= num_rows:
        return list(range(num_rows))
    bounds = [part * num_rows // size for part in range(size + 1)]
    return [
        first + _drawn(f"{seed}/{size}/{first}") % (end - first) for first, end in pairwise(bounds)
    ]


class LargeFile(NamedTuple):
    """Ordinals of a file that can be read only from its start, and how many are near it."""

    first_row: int
    end_row: int
    num_readable: int


class Drawn(NamedTuple):
    """Ordinals of a sample, each ascending."""

    #: Of files that can be read anywhere.
    anywhere: list[int]
    #: Of the first MiB of large files.
    near_start: list[int]


@dataclass(frozen=True)
class SampleFrame:
    """Where rows of a plan can be sampled."""

    #: Ordinals ``[first, end)`` of files that can be read anywhere.
    ranges: tuple[tuple[int, int], ...]
    large: tuple[LargeFile, ...] = ()

    @property
    def num_anywhere(self) -> int:
        """Rows of files that can be read anywhere."""
        return sum(end - first for first, end in self.ranges)

    @property
    def num_large(self) -> int:
        """Rows of large files, near their start or not."""
        return sum(one.end_row - one.first_row for one in self.large)

    def without(self, taken: Sequence[tuple[int, int]]) -> SampleFrame:
        """The same less these ascending ranges of ordinals; a large file goes whole or not."""
        large = tuple(
            one
            for one in self.large
            if not any(first <= one.first_row and one.end_row <= end for first, end in taken)
        )
        return SampleFrame(tuple(_cut_out(self.ranges, taken)), large)

    def draw(self, size: int, seed: str) -> Drawn:
        """A sample in which each kind of file has its share, as far as its rows can be read."""
        num_anywhere, readable = self.num_anywhere, [one for one in self.large if one.num_readable]
        num_near = sum(one.end_row - one.first_row for one in readable)
        share = round(size * num_near / max(1, num_anywhere + num_near))
        if num_anywhere and num_near and size > 1:
            share = min(max(share, 1), size - 1)
        anywhere = sampled_ordinals(num_anywhere, size - share, seed) if size > share else []
        near = sampled_ordinals(num_near, share, seed) if share else []
        return Drawn(_in_ranges(anywhere, self.ranges), _near_start(near, readable))


def frame_of(
    files: Iterable[InputFile], num_rows: int, max_decoded_bytes: int = MAX_DECODED_BYTES
) -> SampleFrame:
    """Where rows can be sampled while large files are not cut anew yet.

    Args:
        files: of the plan, in order.
        num_rows: of the plan; a limit may end it within a file.
        max_decoded_bytes: larger decoded files are cut anew; the format's own but in tests.
    """
    ranges: list[tuple[int, int]] = []
    large = []
    first = 0
    for file in files:
        end = min(first + file.num_rows, num_rows)
        if first == end:
            continue
        if is_recut(file, max_decoded_bytes):
            # The last row that begins in the first window may end far behind it.
            near = min(file.windows[0].num_rows - 1, end - first)
            large.append(LargeFile(first, end, max(0, near)))
        elif ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((first, end))
        first = end
    return SampleFrame(tuple(ranges), tuple(large))


def _cut_out(
    ranges: Iterable[tuple[int, int]], taken: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """What is left of ascending ranges."""
    for first, end in ranges:
        left = first
        for taken_first, taken_end in taken:
            if left < min(taken_first, end):
                yield left, min(taken_first, end)
            left = max(left, min(taken_end, end))
        if left < end:
            yield left, end


def _in_ranges(numbers: Sequence[int], ranges: Sequence[tuple[int, int]]) -> list[int]:
    """The n-th rows of all ranges together, as ordinals."""
    before = list(accumulate((end - first for first, end in ranges), initial=0))
    places = ((bisect_right(before, number) - 1, number) for number in numbers)
    return [ranges[at][0] + number - before[at] for at, number in places]


def _near_start(numbers: Sequence[int], files: Sequence[LargeFile]) -> list[int]:
    """The same of large files, each row moved to the part of its file that can be read."""
    before = list(accumulate((one.end_row - one.first_row for one in files), initial=0))
    moved = set()
    for number in numbers:
        at = bisect_right(before, number) - 1
        file, within = files[at], number - before[at]
        num_rows = file.end_row - file.first_row
        moved.add(file.first_row + within * file.num_readable // num_rows)
    return sorted(moved)


def _drawn(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def read_sample(reader: RowReader, ordinals: Iterable[int]) -> Iterator[Row]:
    """The rows of these ordinals.

    Raises:
        InputError: an input is gone or changed since the plan was made. Ends the job.
    """
    for ordinal in ordinals:
        yield from reader.read_rows(ordinal, ordinal + 1)


@contextmanager
def reader_of_unsaved(planned: PlannedJob) -> Iterator[RowReader]:
    """A reader of a plan that no output holds: its index lies in a temporary folder meanwhile."""
    with tempfile.TemporaryDirectory(prefix="rdu-batch-plan-") as folder:
        store = open_store(folder)
        pages: Sequence[bytes] = planned.pages
        for page, content in zip(planned.plan.index_pages, pages, strict=True):
            store.put_whole(page.name, content)
        # No output holds pieces of large compressed files yet.
        yield RowReader(store, planned.plan, max_decoded_bytes=sys.maxsize)
