"""Tasks that are out at workers, and which of them is worth a second copy; pure.

A task may be out twice: once at the worker that has it, once at an idle one that may be quicker (a
hedge). The first whole answer settles it, and what the other says later changes nothing: both make
the same bytes.

Promises: at most two copies of a task; a suspect, which may kill its session, is never copied.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from rdu_batch.runner.leases import Lease, LeaseDone, Task
from rdu_batch.runner.pace import Pace
from rdu_batch.runner.shard_progress import RowRange

#: A task is late when it takes this many times as long as its worker should need for it,
LATE_FACTOR = 2.0
#: and never before this: a lease of few quick rows is not worth a thought.
LATE_AFTER_S = 2.0
#: Where nothing is known of a task's time.
LATE_UNKNOWN_S = 60.0
MOST_COPIES = 2


@dataclass
class TaskOut:
    """A task at one or two workers."""

    task: Task
    #: The rows as they were pending; None for a shard to seal.
    rows: RowRange | None
    #: When each worker that has it got it; monotonic seconds.
    started_s: dict[int, float] = field(default_factory=dict)
    #: It was answered for good: a copy that is still out counts for nothing.
    is_settled: bool = False
    #: The longest that a copy made durable which stopped on the way while another goes on.
    part: LeaseDone | None = None

    def longest(self, done: LeaseDone) -> LeaseDone:
        """What is durable of the lease: the most that any of its copies came to."""
        if self.part is None or self.part.end_row <= done.end_row:
            self.part = done
        return self.part

    def may_be_copied(self) -> bool:
        """Whether an idle worker may be given it too."""
        if self.is_settled or len(self.started_s) >= MOST_COPIES:
            return False
        if self.rows is None:
            return True
        is_given_up = isinstance(self.task, Lease) and self.task.dead_reason is not None
        return not (self.rows.is_suspect or is_given_up)

    def num_rows(self) -> int:
        """Rows of a lease; 0 for a shard to seal."""
        return self.rows.end_row - self.rows.first_row if self.rows is not None else 0


def worth_a_copy(
    tasks: Iterable[TaskOut],
    pace: Pace,
    worker_id: int,
    now_s: float,
    most: int,
) -> list[TaskOut]:
    """Tasks that idle workers should be given as well, the one that gains most first.

    A copy is worth it where a task is late, so that its worker may hang, or where its worker is
    known to be so slow that an idle one would be done first.

    Args:
        tasks: that are out; one may come up twice.
        pace: of all workers.
        worker_id: of an idle worker; the others are taken to be like it.
        now_s: monotonic seconds.
        most: how many are wanted at most.
    """
    gains = []
    for out in tasks:
        if out.may_be_copied():
            ((owner, started_s),) = out.started_s.items()
            gain_s = _gain_s(out, owner, worker_id, now_s - started_s, pace)
            if gain_s > 0:
                gains.append((gain_s, out))
    return [out for _, out in heapq.nlargest(most, gains, key=lambda pair: pair[0])]


def _gain_s(out: TaskOut, owner: int, worker_id: int, elapsed_s: float, pace: Pace) -> float:
    """Seconds that a copy is expected to gain; how late it is, where it is late."""
    if out.rows is None:
        owner_s = own_s = pace.seal_s
    else:
        owner_s = pace.lease_s(owner, out.num_rows())
        own_s = pace.lease_s(worker_id, out.num_rows())
    if owner_s is None or own_s is None:
        return elapsed_s - LATE_UNKNOWN_S
    late_s = elapsed_s - max(LATE_FACTOR * owner_s, LATE_AFTER_S)
    if late_s > 0:
        return late_s
    return owner_s - elapsed_s - max(own_s, LATE_AFTER_S)
