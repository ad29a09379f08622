"""The small values that travel between driver and worker; JSON on every wire, never pickle.

A worker gets a ``Lease`` (rows to run) or a ``SealTask`` (a shard whose rows are all in segments),
and answers with a ``LeaseDone`` or a ``SealDone``. Row data never travels this way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.time_spent import TimeSpent


@dataclass(frozen=True)
class Lease:
    """Rows ``[first_row, end_row)`` of one shard, handed to one worker."""

    lease_id: int
    shard: int
    first_row: int
    end_row: int
    #: The lease is its whole shard, so the worker seals at once, without a segment.
    covers_shard: bool
    #: Set when the lease's one row has killed its session too often: do not run it, write its dead
    #: letter with this reason.
    dead_reason: str | None = None
    #: The lease's one row is suspected of killing its session: it is tried alone.
    is_suspect: bool = False

    @property
    def num_rows(self) -> int:
        """Rows in the lease."""
        return self.end_row - self.first_row


@dataclass(frozen=True)
class SealTask:
    """Seal this shard from its segments."""

    shard: int


Task = Lease | SealTask


@dataclass(frozen=True)
class LeaseDone:
    """A finished lease: its rows are durable, in a segment or in a committed shard.

    ``end_row`` is lower than the lease's when the worker was asked to stop on the way, or lost.
    """

    lease_id: int
    shard: int
    first_row: int
    end_row: int
    is_committed: bool = False
    totals: Totals = field(default_factory=Totals)
    spent: TimeSpent = field(default_factory=TimeSpent)


@dataclass(frozen=True)
class SealDone:
    """A sealed shard, or the row ranges that no good segment holds."""

    shard: int
    totals: Totals
    missing: tuple[tuple[int, int], ...] = field(default=())
    spent: TimeSpent = field(default_factory=TimeSpent)


Answer = LeaseDone | SealDone

_KINDS: dict[str, type[Lease | SealTask | LeaseDone | SealDone]] = {
    kind.__name__: kind for kind in (Lease, SealTask, LeaseDone, SealDone)
}


def to_wire(message: Task | Answer) -> dict[str, Any]:
    """A JSON object that ``from_wire`` reads back."""
    return {"kind": type(message).__name__, **asdict(message)}


def from_wire(document: dict[str, Any]) -> Task | Answer:
    """Read a message back.

    Raises:
        ValueError: not a message of this version.
    """
    fields = dict(document)
    kind = _KINDS.get(str(fields.pop("kind", None)))
    if kind is None:
        raise ValueError(f"unknown message kind in {document!r}")
    if "totals" in fields:
        fields["totals"] = Totals.from_json(fields["totals"])
    if "spent" in fields:
        fields["spent"] = TimeSpent(*fields["spent"])
    if "missing" in fields:
        fields["missing"] = tuple((first, end) for first, end in fields["missing"])
    return kind(**fields)
