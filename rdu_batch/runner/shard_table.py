"""Which rows and shards wait, are out, or are done; pure.

Promises: every row is in exactly one of pending, out, durable; taking and giving back cost the same
however many shards there are. State: the shards in progress, and one byte a shard.
Does not: know workers or time; see ``scheduler.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from rdu_batch.job.plan import Plan
from rdu_batch.runner.shard_progress import RowRange, ShardProgress


class ShardTable:
    """The shards of one epoch.

    Args:
        plan: the job's plan.
        committed: shards that need nothing more.
        begun: pending rows of shards that are not wholly pending, or have suspects.
    """

    def __init__(
        self,
        plan: Plan,
        committed: Iterable[int],
        begun: Mapping[int, list[RowRange]],
    ) -> None:
        self._plan = plan
        self._is_committed = bytearray(plan.num_shards)
        for index in committed:
            self._is_committed[index] = 1
        self.num_uncommitted = plan.num_shards - sum(self._is_committed)
        self._open: dict[int, ShardProgress] = {
            index: ShardProgress(list(ranges))
            for index, ranges in sorted(begun.items())
            if not self._is_committed[index]
        }
        # As sets in order: the shard that waits longest comes first.
        self._with_pending: dict[int, None] = {}
        self._to_seal: dict[int, None] = {}
        for index in self._open:
            self._sort_in(index)
        self._next_shard = 0
        self.num_pending = self._count_pending()

    @property
    def num_to_seal(self) -> int:
        """Shards whose rows are all durable and that nobody seals."""
        return len(self._to_seal)

    def take_seal(self) -> int | None:
        """A shard to seal, if there is one."""
        if not self._to_seal:
            return None
        index = next(iter(self._to_seal))
        self._open[index].is_sealing = True
        self._sort_in(index)
        return index

    def take_rows(self, most: int) -> tuple[int, RowRange] | None:
        """Pending rows of one shard, ``most`` at most: of what is begun, then of a new shard."""
        index = next(iter(self._with_pending), None)
        if index is None:
            index = self._open_next()
        if index is None:
            return None
        shard = self._open[index]
        rows = shard.pending.pop(0)
        taken = replace(rows, end_row=min(rows.end_row, rows.first_row + most))
        if taken.end_row < rows.end_row:
            shard.pending.insert(0, replace(rows, first_row=taken.end_row))
        shard.num_leased += 1
        self.num_pending -= taken.end_row - taken.first_row
        self._sort_in(index)
        return index, taken

    def return_rows(self, index: int, ranges: Iterable[RowRange]) -> None:
        """A lease of this shard is over; these of its rows are not durable."""
        self._open[index].num_leased -= 1
        self._add_pending(index, ranges)

    def return_seal(self, index: int, ranges: Iterable[RowRange] = ()) -> None:
        """Nobody seals this shard any more; these rows turned out to be missing."""
        self._open[index].is_sealing = False
        self._add_pending(index, ranges)

    def commit(self, index: int) -> None:
        """The shard has its commit record."""
        del self._open[index]
        self._with_pending.pop(index, None)
        self._to_seal.pop(index, None)
        self._is_committed[index] = 1
        self.num_uncommitted -= 1

    def _add_pending(self, index: int, ranges: Iterable[RowRange]) -> None:
        shard = self._open[index]
        added = list(ranges)
        shard.pending = sorted([*shard.pending, *added], key=lambda rows: rows.first_row)
        self.num_pending += sum(rows.end_row - rows.first_row for rows in added)
        self._sort_in(index)

    def _sort_in(self, index: int) -> None:
        """Note what a shard in progress waits for, after anything about it changed."""
        shard = self._open[index]
        for waiting, waits in (
            (self._with_pending, bool(shard.pending)),
            (self._to_seal, shard.is_ready_to_seal),
        ):
            if waits:
                waiting[index] = None
            else:
                waiting.pop(index, None)

    def _open_next(self) -> int | None:
        while self._next_shard < self._plan.num_shards:
            index = self._next_shard
            self._next_shard += 1
            if not self._is_committed[index] and index not in self._open:
                whole = self._plan.shard(index)
                self._open[index] = ShardProgress([RowRange(whole.first_row, whole.end_row)])
                return index
        return None

    def _count_pending(self) -> int:
        rows = sum(r.end_row - r.first_row for s in self._open.values() for r in s.pending)
        for index, is_committed in enumerate(self._is_committed):
            if not is_committed and index not in self._open:
                shard = self._plan.shard(index)
                rows += shard.end_row - shard.first_row
        return rows
