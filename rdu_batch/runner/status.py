"""Where an output stands, read from its store alone, from any machine; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rdu_batch.dataset.planning import load_plan
from rdu_batch.runner.commits import committed_shards
from rdu_batch.runner.epochs import last_epoch, last_result
from rdu_batch.runner.manifest import read_manifest, read_success
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.resume import missing_by_shard, num_pending_rows
from rdu_batch.storage.store import Store


@dataclass(frozen=True)
class OutputStatus:
    """The state of an output.

    ``state`` is ``empty`` (no plan), ``unfinished`` (some rows may be durable; a run may or may not
    be at it) or ``complete``.
    """

    output: str
    state: str
    name: str | None = None
    job_digest: str | None = None
    rows: int = 0
    rows_durable: int = 0
    shards: int = 0
    shards_committed: int = 0
    epoch: int = 0
    totals: Totals | None = None
    #: What the last epoch that ended reported; None if it was killed or still runs.
    last_result: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``exit`` is 0, whatever the state."""
        totals = self.totals.to_json() if self.totals else None
        return {**vars(self), "totals": totals, "exit": 0}


def read_status(store: Store) -> OutputStatus:
    """Look at an output.

    Raises:
        OutputMismatch: another format version wrote it.
        StoreError: the store failed.
    """
    plan = load_plan(store)
    success = read_success(store)
    if success is not None:
        manifest, _ = read_manifest(store)
        totals = Totals.from_json(manifest["totals"])
        shards = len(manifest["parts"])
        return OutputStatus(
            store.url,
            "complete",
            plan.name if plan else None,
            success.job_digest,
            totals.rows,
            totals.rows,
            shards,
            shards,
            last_epoch(store),
            totals,
            last_result(store),
        )
    if plan is None:
        return OutputStatus(store.url, "empty")
    committed = set(committed_shards(store))
    num_pending = num_pending_rows(plan, committed, missing_by_shard(store, plan, committed))
    return OutputStatus(
        store.url,
        "unfinished",
        plan.name,
        plan.job_digest,
        plan.num_rows,
        plan.num_rows - num_pending,
        plan.num_shards,
        len(committed),
        last_epoch(store),
        None,
        last_result(store),
    )
