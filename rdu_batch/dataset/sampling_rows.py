"""A few rows of a plan, spread over all of it, the same ones each time.

Promises: rows are chosen by the number of rows and a seed text alone; each tenth (or hundredth) of
the rows gives its share, so that a sorted input is not misjudged; what is read is bounded by the
size of the sample. Does not: judge rows.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from rdu_batch.dataset.reader import RowReader
from rdu_batch.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rdu_batch.dataset.planning import PlannedJob
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
