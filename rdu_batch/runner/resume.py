"""What earlier epochs of a job left, read from the store alone.

Commit records say which shards are final, the names of segments which rows of the others are
durable. Nothing else counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from rdu_batch.errors import OutputMismatch
from rdu_batch.job.plan import Plan
from rdu_batch.runner.commits import (
    CommitRecord,
    committed_shards,
    publish,
    published_names,
    read_commits,
)
from rdu_batch.runner.segments import list_segments, missing_ranges
from rdu_batch.storage.store import Store


@dataclass(frozen=True)
class LeftBehind:
    """Where a job stands before this epoch does anything."""

    committed: list[int]
    #: For each uncommitted shard with segments: the row ranges that none of them covers.
    begun: dict[int, list[tuple[int, int]]]
    num_pending_rows: int


def look_back(store: Store, plan: Plan) -> LeftBehind:
    """Take stock, and publish what a killed epoch committed but did not publish."""
    committed = committed_shards(store)
    if committed:
        published = set(store.list_names())
        for record in read_commits(store, committed):
            _check_plan(store, record, plan)
            if not {name for _, name in published_names(record, plan)} <= published:
                publish(store, record, plan)
    begun = missing_by_shard(store, plan, set(committed))
    return LeftBehind(committed, begun, num_pending_rows(plan, set(committed), begun))


def _check_plan(store: Store, record: CommitRecord, plan: Plan) -> None:
    if record.plan_digest != plan.digest:
        raise OutputMismatch(
            f"{store.url}: shard {record.shard} was committed under the plan {record.plan_digest}, "
            f"the output's plan is {plan.digest}: the old plan was lost. Choose another output.url."
        )


def missing_by_shard(
    store: Store, plan: Plan, committed: set[int]
) -> dict[int, list[tuple[int, int]]]:
    """For each uncommitted shard with segments: the row ranges that none of them covers."""
    missing = {}
    for index, segments in groupby(list_segments(store), key=lambda segment: segment.shard):
        if index not in committed:
            shard = plan.shard(index)
            missing[index] = missing_ranges(list(segments), shard.first_row, shard.end_row)
    return missing


def num_pending_rows(
    plan: Plan, committed: set[int], begun: dict[int, list[tuple[int, int]]]
) -> int:
    """Rows that are neither committed nor in a segment."""
    num_pending = 0
    for shard in plan.shards():
        if shard.index not in committed:
            ranges = begun.get(shard.index, [(shard.first_row, shard.end_row)])
            num_pending += sum(end - first for first, end in ranges)
    return num_pending
