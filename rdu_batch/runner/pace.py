"""How long rows take, worker by worker, and how many of them make a lease; pure.

Promises: a slow worker gets short leases from its second one on; toward the end of a job leases
shrink to a part of what is left for that worker. Does not: know rows or shards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: A lease aims at this much work: short enough to lose little by a lost node and to show progress,
LEASE_TARGET_S = 10.0
#: and at more in a long job, up to this much, because each lease costs the driver and the store.
LONGEST_TARGET_S = 60.0
#: A lease of a long job is about this part of what is left.
TARGET_SHARE = 0.02
#: Toward the end a lease is at most this part of what the worker's fair share would be.
TAIL_SHARE = 0.5
#: A lease has at most this many times the rows of the largest one that came back: one quick row (a
#: dead letter, say) must not make a lease of a whole shard.
LEASE_GROWTH = 4


@dataclass
class Pace:
    """Seconds a row takes, as a mean in which each lease counts as much as all before it."""

    #: Of all workers together; None until a first lease came back.
    row_s: float | None = None
    #: Of one sealing.
    seal_s: float | None = None
    _row_s_of: dict[int, float] = field(default_factory=dict)
    _largest_lease: int = 0

    def note_lease(self, worker_id: int, num_rows: int, rows_s: float) -> None:
        """A lease came back."""
        if not num_rows:
            return
        row_s = rows_s / num_rows
        self.row_s = _mean(self.row_s, row_s)
        self._row_s_of[worker_id] = _mean(self._row_s_of.get(worker_id), row_s)
        self._largest_lease = max(self._largest_lease, num_rows)

    def note_seal(self, seal_s: float) -> None:
        """A shard was sealed from its segments."""
        self.seal_s = _mean(self.seal_s, seal_s)

    def forget(self, worker_id: int) -> None:
        """The worker is gone."""
        self._row_s_of.pop(worker_id, None)

    def row_s_of(self, worker_id: int) -> float | None:
        """Seconds a row takes this worker; as all do where nothing is known of it."""
        return self._row_s_of.get(worker_id, self.row_s)

    def lease_s(self, worker_id: int, num_rows: int) -> float | None:
        """How long this worker would need for so many rows; None if nothing is known."""
        row_s = self.row_s_of(worker_id)
        return None if row_s is None else row_s * num_rows

    def lease_rows(self, worker_id: int, num_pending: int, num_workers: int) -> int:
        """Rows for 10 to 60 seconds of this worker's time, fewer toward the end.

        1 as long as nothing is known.
        """
        row_s = self.row_s_of(worker_id)
        if row_s is None or self.row_s is None:
            return 1
        left_s = num_pending * self.row_s / num_workers
        target_s = min(max(LEASE_TARGET_S, TARGET_SHARE * left_s), LONGEST_TARGET_S)
        target = target_s / row_s if row_s > 0 else math.inf
        # A worker's share of what is left goes with its speed.
        speed = self.row_s / row_s if row_s > 0 else 1.0
        tail = math.ceil(TAIL_SHARE * num_pending / num_workers * min(1.0, speed))
        return max(1, int(min(target, tail, LEASE_GROWTH * self._largest_lease)))


def _mean(before: float | None, now: float) -> float:
    return now if before is None else (before + now) / 2
