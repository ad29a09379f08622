"""Pending rows of the shards in progress, and what a worker's death does to them; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rdu_batch.job.records import Reason
from rdu_batch.runner.executor import WorkerLost


@dataclass(frozen=True)
class RowRange:
    """Pending rows ``[first_row, end_row)`` with what happened to them so far."""

    first_row: int
    end_row: int
    #: Session deaths while this single row ran alone; only ever above 0 for one row.
    strikes: int = 0
    #: How the last strike came about: the reason of the dead letter that the row may become.
    strike_reason: str = ""
    #: Suspected of killing its session: leased alone.
    is_suspect: bool = False


@dataclass
class ShardProgress:
    """A shard that is begun but not committed."""

    pending: list[RowRange]
    num_leased: int = 0
    is_sealing: bool = False

    @property
    def is_ready_to_seal(self) -> bool:
        """All rows durable, nobody sealing yet."""
        return not self.pending and not self.num_leased and not self.is_sealing


def what_is_left(rows: RowRange, first_row: int, lost: WorkerLost | None) -> list[RowRange]:
    """What returns to pending of leased rows of which those before ``first_row`` are durable.

    Args:
        rows: as they were leased.
        first_row: the first one that is not durable.
        lost: the worker's death, if that is how the lease ended. If its session died inside a known
            row, that row is a suspect, to be leased alone; dying again, alone, is a strike. A lost
            actor, node or driver is never held against a row.
    """
    if first_row == rows.end_row:
        return []
    rows = replace(rows, first_row=first_row)
    row = lost.row if lost is not None and lost.session_died else None
    if lost is None or row is None or not rows.first_row <= row < rows.end_row:
        return [rows]
    if rows.is_suspect:
        reason = Reason.ROW_TIMEOUT if lost.row_timed_out else Reason.SESSION_KILLED
        return [replace(rows, strikes=rows.strikes + 1, strike_reason=str(reason))]
    parts = [
        RowRange(rows.first_row, row),
        RowRange(row, row + 1, is_suspect=True),
        RowRange(row + 1, rows.end_row),
    ]
    return [part for part in parts if part.first_row < part.end_row]


def with_suspects(
    ranges: Iterable[tuple[int, int]], suspects: Iterable[RowRange]
) -> list[RowRange]:
    """Pending row ranges in which each suspect, if it is pending at all, stands alone.

    Args:
        ranges: first row and end of each, ascending.
        suspects: single rows, ascending.
    """
    known = list(suspects)
    found = []
    for first_row, end_row in ranges:
        next_row = first_row
        for suspect in known:
            if next_row <= suspect.first_row < end_row:
                found += [RowRange(next_row, suspect.first_row), suspect]
                next_row = suspect.end_row
        found.append(RowRange(next_row, end_row))
    return [part for part in found if part.first_row < part.end_row]
