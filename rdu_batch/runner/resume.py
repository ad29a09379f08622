"""What earlier epochs of a job left, read from the store alone.

Commit records say which shards are final, the names of segments which rows of the others are
durable, those of attempts which rows are suspects. Nothing else counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from rdu_batch.job.plan import Plan
from rdu_batch.runner.attempts import read_suspects
from rdu_batch.runner.commits import (
    committed_shards,
    publish,
    published_names,
    read_commits,
)
from rdu_batch.runner.sealing import check_plan
from rdu_batch.runner.segments import list_segments, missing_ranges
from rdu_batch.runner.shard_progress import RowRange, with_suspects
from rdu_batch.storage.store import Store


@dataclass(frozen=True)
class LeftBehind:
    """Where a job stands before this epoch does anything."""

    committed: list[int]
    #: For each uncommitted shard with segments or suspects: the rows that no segment covers, each
    #: suspect among them alone and with its strikes.
    begun: dict[int, list[RowRange]]
    num_pending_rows: int


def look_back(store: Store, plan: Plan) -> LeftBehind:
    """Take stock, and publish what a killed epoch committed but did not publish."""
    committed = committed_shards(store)
    if committed:
        published = {(name, stat.size_bytes) for name, stat in store.list_objects()}
        for record in read_commits(store, committed):
            check_plan(store, record, plan)
            # With its size: half a file under a stable name is none, whoever left it.
            wanted = {(name, file.num_bytes) for file, name in published_names(record, plan)}
            if not wanted <= published:
                publish(store, record, plan)
    missing = missing_by_shard(store, plan, set(committed))
    suspects = read_suspects(store, set(committed))
    begun = {}
    for index in sorted(missing.keys() | suspects.keys()):
        shard = plan.shard(index)
        ranges = missing.get(index, [(shard.first_row, shard.end_row)])
        begun[index] = with_suspects(ranges, suspects.get(index, []))
    return LeftBehind(committed, begun, num_pending_rows(plan, set(committed), missing))


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
