"""Segments: a finished lease's outcomes as one object in the store.

Promises: a segment counts only if its bytes have the sha256 in its name, so a torn or foreign
object is as good as absent; where segments overlap, every reader settles on the same outcomes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from rdu_batch.errors import ObjectMissing
from rdu_batch.runner.outcomes import Outcome, read_outcomes
from rdu_batch.runner.run_layout import SEGMENTS_FOLDER, SegmentName
from rdu_batch.storage.store import Store


def list_segments(store: Store) -> list[SegmentName]:
    """All segments by name, sorted by shard and row; their bytes are checked when read."""
    names = store.list_names(SEGMENTS_FOLDER, recursive=True)
    return sorted(segment for name in names if (segment := SegmentName.parse(name)) is not None)


def read_segment(store: Store, segment: SegmentName) -> list[Outcome] | None:
    """The segment's outcomes in row order, or None if its bytes are not what its name says."""
    try:
        content = store.read(segment.name)
    except ObjectMissing:
        return None
    if hashlib.sha256(content).hexdigest() != segment.sha256:
        return None
    # Not splitlines: a carried field may hold a carriage return as JSON white space.
    outcomes = list(read_outcomes(line + b"\n" for line in content.split(b"\n")[:-1]))
    if len(outcomes) != segment.end_row - segment.first_row:
        return None
    return outcomes


def merge_segments(
    store: Store, segments: Sequence[SegmentName], first_row: int, end_row: int
) -> Iterator[Outcome | None]:
    """One outcome a row of ``[first_row, end_row)``; None for a row that no good segment holds.

    Where segments overlap, a prediction wins over a dead letter, then the lowest name. Holds only
    the segments that reach over the current row.
    """
    waiting = sorted(segments, reverse=True)
    open_segments: list[tuple[SegmentName, list[Outcome]]] = []
    for row in range(first_row, end_row):
        while waiting and waiting[-1].first_row <= row:
            segment = waiting.pop()
            outcomes = read_segment(store, segment) if segment.end_row > row else None
            if outcomes is not None:
                open_segments.append((segment, outcomes))
        open_segments = [(s, o) for s, o in open_segments if s.end_row > row]
        here = [outcomes[row - segment.first_row] for segment, outcomes in open_segments]
        yield next((o for o in here if o.is_prediction), here[0] if here else None)


def missing_ranges(
    segments: Sequence[SegmentName], first_row: int, end_row: int
) -> list[tuple[int, int]]:
    """The row ranges of ``[first_row, end_row)`` that no segment's name covers, ascending."""
    gaps = []
    next_row = first_row
    for segment in sorted(segments):
        gap_end = min(segment.first_row, end_row)
        if gap_end > next_row:
            gaps.append((next_row, gap_end))
        next_row = max(next_row, segment.end_row)
    if next_row < end_row:
        gaps.append((next_row, end_row))
    return gaps
