"""Rows of finished shards that another output keeps, as segments.

Promises: a shard is read in bounded memory, its row digests aside; a kept row's outcome holds the
line that was published, byte for byte; the same outcomes give the same segments. Does not: touch a
store.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from rdu_batch.job.plan import Shard
from rdu_batch.job.records import row_key
from rdu_batch.job.row_digest import NO_ROW_DIGEST, ROW_DIGEST_BYTES
from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.part_formats import unpacked_lines
from rdu_batch.runner.published import outcome_of
from rdu_batch.runner.run_layout import SegmentName
from rdu_batch.runner.sealing import LineSpool

#: Epoch in the names of segments that a parent gave; a driver's first epoch is 1.
SEED_EPOCH = 0


def is_kept(outcome: Outcome, reasons: Collection[str]) -> bool:
    """Whether a retry of these reasons keeps a row's outcome."""
    return outcome.is_prediction or outcome.label not in reasons


def read_shard(
    part: Path, dead: Path, shard: Shard, row_digests: bytes | None = None
) -> Iterator[Outcome]:
    """The outcomes of a shard in row order, from local copies of its two files.

    Args:
        part: its name says its format.
        dead: empty where the shard has no dead letters.
        shard: the shard.
        row_digests: of the predictions, in order; None where there are none.

    Raises:
        ValueError: the files do not hold each row of the shard once, as this program writes them.
    """
    num_rows = num_predictions = 0
    previous: tuple[int, int] | None = None
    with part.open("rb") as predictions, dead.open("rb") as letters:
        keyed = heapq.merge(
            _keyed(unpacked_lines(predictions, part.name), is_prediction=True),
            _keyed(letters, is_prediction=False),
        )
        for key, is_prediction, line in keyed:
            if previous is not None and key <= previous:
                raise ValueError(f"row {list(key)} is out of order or there twice")
            try:
                outcome = outcome_of(line, is_prediction=is_prediction)
            except (KeyError, TypeError) as error:
                raise ValueError(f"row {list(key)} is damaged: {error!r}") from error
            if is_prediction:
                digest = _digest_at(row_digests, num_predictions)
                outcome = outcome._replace(row_digest=digest)
                num_predictions += 1
            yield outcome
            previous = key
            num_rows += 1
    if num_rows != shard.num_rows:
        raise ValueError(f"its files have {num_rows} rows, the plan says {shard.num_rows}")


def kept_segments(
    outcomes: Iterable[Outcome | None], shard: Shard, path: Path
) -> Iterator[SegmentName]:
    """The segments of the rows that are kept, one for each run of them.

    Args:
        outcomes: of the shard's rows, in order; None for a row that is not kept.
        shard: the shard.
        path: of a local file. It holds a segment's bytes when its name is yielded, until the next.
    """
    spool: LineSpool | None = None
    first_row = row = shard.first_row
    for row, outcome in enumerate(outcomes, start=shard.first_row):
        if outcome is not None:
            if spool is None:
                spool, first_row = LineSpool(path), row
            spool.write(outcome.to_bytes())
        elif spool is not None:
            yield _closed(spool, shard, first_row)
            spool = None
    if spool is not None:
        yield _closed(spool, shard, first_row)


def _digest_at(row_digests: bytes | None, index: int) -> str:
    if row_digests is None:
        return NO_ROW_DIGEST
    start = index * ROW_DIGEST_BYTES
    digest = row_digests[start : start + ROW_DIGEST_BYTES]
    if len(digest) < ROW_DIGEST_BYTES:
        raise ValueError(f"it has fewer row digests ({len(row_digests)} bytes) than predictions")
    return digest.hex()


def _closed(spool: LineSpool, shard: Shard, first_row: int) -> SegmentName:
    spool.close()
    end_row = first_row + spool.num_rows
    return SegmentName(shard.index, first_row, end_row, SEED_EPOCH, 0, spool.sha256)


def _keyed(
    lines: Iterable[bytes], *, is_prediction: bool
) -> Iterator[tuple[tuple[int, int], bool, bytes]]:
    return ((row_key(line), is_prediction, line) for line in lines)
