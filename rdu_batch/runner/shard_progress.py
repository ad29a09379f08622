"""Pending rows of the shards in progress, and what a worker's death does to them; pure."""

from __future__ import annotations

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


def after_death(rows: RowRange, event: WorkerLost) -> list[RowRange]:
    """What returns to pending when a worker dies with these rows.

    If its session died inside a known row, that row is a suspect, to be leased alone; dying again,
    alone, is a strike. A lost actor, node or driver is never held against a row.
    """
    row = event.row
    if not event.session_died or row is None or not rows.first_row <= row < rows.end_row:
        return [rows]
    if rows.is_suspect:
        reason = Reason.ROW_TIMEOUT if event.row_timed_out else Reason.SESSION_KILLED
        return [replace(rows, strikes=rows.strikes + 1, strike_reason=str(reason))]
    parts = [
        RowRange(rows.first_row, row),
        RowRange(row, row + 1, is_suspect=True),
        RowRange(row + 1, rows.end_row),
    ]
    return [part for part in parts if part.first_row < part.end_row]
