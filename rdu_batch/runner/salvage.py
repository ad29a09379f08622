"""What a dead session had finished: its spooled outcomes become a segment, put by its watcher.

A session process writes each outcome to its spool, a local file, before it begins the next row. So
when a row kills it, the rows before that one need not run again.

Promises: nothing is kept that does not read as whole outcomes, one for each row before the one in
progress. Does not: decide what becomes of the other rows.
"""

from __future__ import annotations

from pathlib import Path

from rdu_batch.runner.leases import Lease
from rdu_batch.runner.outcomes import Outcome, Totals
from rdu_batch.runner.run_layout import SegmentName
from rdu_batch.runner.sealing import LineSpool
from rdu_batch.storage.store import Store


def salvage(
    store: Store, lease: Lease, epoch: int, spool: Path, row: int | None
) -> tuple[int, Totals]:
    """Put the finished rows of a lease as a segment.

    Args:
        store: the output.
        lease: that the session had.
        epoch: of the driver.
        spool: the file that the session wrote; it may be missing, or end in the middle of a line.
        row: ordinal of the row that was in progress; None if the session died between rows.

    Returns:
        The end of the rows that are durable now, and their totals; the lease's first row and
        nothing where nothing can be kept.

    Raises:
        StoreError: the store, or the local disk, failed; nothing was kept.
    """
    nothing = lease.first_row, Totals()
    if not spool.exists():
        return nothing
    totals = Totals()
    kept = LineSpool(spool.with_suffix(".kept"))
    with kept, spool.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            try:
                totals.count(Outcome.from_bytes(line))
            except ValueError:
                return nothing
            kept.write(line)
    end_row = lease.first_row + kept.num_rows
    # A spool that does not fit the row in progress is not what it is taken for.
    if not kept.num_rows or end_row > lease.end_row or (row is not None and row != end_row):
        return nothing
    segment = SegmentName(lease.shard, lease.first_row, end_row, epoch, lease.lease_id, kept.sha256)
    store.put_file(segment.name, str(kept.path))
    return end_row, totals
