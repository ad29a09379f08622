"""Where an output stands, read from its store alone, from any machine; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rdu_batch.dataset.planning import load_plan
from rdu_batch.runner.commits import committed_shards
from rdu_batch.runner.epochs import has_result, last_epoch, last_result, read_owner
from rdu_batch.runner.heartbeat import read_count
from rdu_batch.runner.manifest import read_manifest, read_success
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.process_mark import ProcessMark, is_alive, is_gone
from rdu_batch.runner.resume import missing_by_shard, num_pending_rows
from rdu_batch.storage.store import Store

#: What an epoch's result holds of each second and of each worker: kilobytes, of no use in a line.
_SERIES = frozenset({"throughput", "by_worker"})


@dataclass(frozen=True)
class DriverStatus:
    """What one look tells of the last epoch's driver.

    ``state`` is ``ended`` (it reported its end), ``running`` (its process lives on this machine),
    ``gone`` (it was killed: it ran on this machine and its process is no more) or ``unknown``: only
    a heartbeat that moves between two looks tells that a driver lives elsewhere.
    """

    epoch: int
    host: str
    pid: int
    state: str
    #: How often it has moved its heartbeat; None if it never did.
    heartbeats: int | None


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
    #: The driver of ``epoch``; None if there was none yet.
    driver: DriverStatus | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``exit`` is 0, whatever the state. Long series are left to the page."""
        totals = self.totals.to_json() if self.totals else None
        driver = vars(self.driver) if self.driver else None
        last = self.last_result and {
            name: one for name, one in self.last_result.items() if name not in _SERIES
        }
        told = {"totals": totals, "last_result": last, "driver": driver, "exit": 0}
        return {**vars(self), **told}


def read_status(store: Store) -> OutputStatus:
    """Look at an output.

    Raises:
        OutputMismatch: another format version wrote it.
        StoreError: the store failed.
    """
    plan = load_plan(store)
    epoch = last_epoch(store)
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
            epoch,
            totals,
            last_result(store),
            _look_at_driver(store, epoch),
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
        epoch,
        None,
        last_result(store),
        _look_at_driver(store, epoch),
    )


def _look_at_driver(store: Store, epoch: int) -> DriverStatus | None:
    owner = read_owner(store, epoch) if epoch else None
    if owner is None:
        return None
    state = "ended" if has_result(store, epoch) else _state_of(owner.process)
    return DriverStatus(epoch, owner.host, owner.pid, state, read_count(store, epoch))


def _state_of(process: ProcessMark | None) -> str:
    if process is None:
        return "unknown"
    if is_alive(process):
        return "running"
    return "gone" if is_gone(process) else "unknown"
