"""What a retry of dead letters begins with: a new output that its finished parent has seeded.

A retry is a run whose output is not empty at its start. Before its driver looks back, it finds
there what the parent's finished run made durable:

- a plan with the same rows in the same shards, and the parent's name (``job.plan.Parent``);
- the parent's canary, so that only machines that compute the same numbers take part;
- for each shard without a row to retry: the parent's files, byte for byte, and a commit record;
- for each other shard: one segment for each run of rows that are kept, predictions and dead letters
  of other reasons alike.

So the rows that are left to run are exactly the retried ones, and leases, sealing, resume and
fencing are those of any run. Every object here has bytes that follow from the plan alone and is
written whole or created once: seeding is repeated at each start for the shards that are not
committed yet, and two drivers that seed at once do each other no harm.

Promises: nothing of the parent is handed on before its sha256 is what the parent's manifest says;
nothing is written to the parent.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdu_batch.dataset.planning import load_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.dataset.recut import is_recut, piece_names
from rdu_batch.errors import OutputMismatch, VerifyFailed
from rdu_batch.job import run_paths
from rdu_batch.job.plan import Parent, Plan, Shard, diff_decides, digest_of
from rdu_batch.runner.commits import (
    committed_shards,
)
from rdu_batch.runner.kept_rows import is_kept, kept_segments
from rdu_batch.runner.manifest import read_success
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.parents import FinishedOutput, check_parent
from rdu_batch.runner.run_layout import CANARY
from rdu_batch.storage.store import Store


@dataclass(frozen=True)
class RetrySeed:
    """A finished parent, and which of its dead letters are run again."""

    finished: FinishedOutput
    #: What the new plan and manifest say of the parent.
    parent: Parent

    def plan(self, store: Store, decides: dict[str, Any]) -> Plan:
        """The plan of the new output; made from the parent's and saved if there is none yet.

        Args:
            store: the new output.
            decides: what decides the bytes of the job that is to run (``job_decides``).

        Raises:
            OutputMismatch: the parent is another job's, or the new output holds something else.
            StoreError: a store failed.
        """
        self._check_job(decides)
        source = self.finished
        wanted = source.plan.with_parent(self.parent)
        existing = load_plan(store)
        if existing is None:
            for file in RowReader(source.store, source.plan).input_files():
                if is_recut(file):
                    for name in piece_names(file):
                        store.put_whole(name, source.read_of_run(name))
            for page in wanted.index_pages:
                store.put_whole(page.name, self._index_page(page.name, page.sha256))
            store.create_or_read(run_paths.PLAN, wanted.to_bytes())
            existing = load_plan(store)
        if existing is None or existing.digest != wanted.digest:
            check_parent(store, existing.parent if existing else None, self.parent)
            raise OutputMismatch(
                f"{store.url} holds another plan than its parent {source.store.url}; choose "
                "another output for the retry."
            )
        return wanted

    def seed(self, store: Store, plan: Plan, confirm: Callable[[], None]) -> None:
        """Make durable in the new output what the parent has; shards committed there are done.

        Args:
            store: the new output.
            plan: its plan.
            confirm: called before each shard; what it raises ends the seeding.

        Raises:
            VerifyFailed: the parent is damaged. Ends the job (exit 7).
            OutputMismatch: the parent's run folder is incomplete. Ends the job.
            StoreError: a store failed. Ends the job.
        """
        source = self.finished
        store.create_or_read(CANARY, source.read_of_run(CANARY))
        committed = set(committed_shards(store))
        totals = Totals()
        for entry in source.entries():
            shard = plan.shard(int(entry["shard"]))
            record = source.record(entry)
            totals.add(record.totals)
            if shard.index in committed:
                continue
            confirm()
            if self.parent.retries(record.totals.dead_reasons):
                self._keep_rows(store, shard, entry)
            else:
                source.copy_shard(store, plan, entry)
        if totals.to_json() != source.manifest["totals"]:
            raise VerifyFailed(
                f"{source.store.url}: its commit records do not add up to its manifest's totals"
            )

    def _check_job(self, decides: dict[str, Any]) -> None:
        source = self.finished
        if digest_of(decides) == source.plan.job_digest:
            return
        differences = diff_decides(source.plan.decides, decides)
        lines = "\n".join(f"  {line}" for line in differences)
        raise OutputMismatch(
            f"the parent {source.store.url} was made by another job than this one, and all rows of "
            f"an output must be made alike. What differs (there -> here):\n{lines}\n"
            "Take the change back; name, limits, workers and the place of the artifact may change"
        )

    def _keep_rows(self, store: Store, shard: Shard, entry: dict[str, Any]) -> None:
        """Put a segment for each run of rows that are kept."""
        reasons = self.parent.reasons or ()
        with (
            closing(self.finished.outcomes(entry, shard)) as outcomes,
            tempfile.TemporaryDirectory(prefix="rdu-batch-retry-") as folder,
        ):
            path = Path(folder, "segment")
            kept = (one if is_kept(one, reasons) else None for one in outcomes)
            for segment in kept_segments(kept, shard, path):
                store.put_file(segment.name, str(path))

    def _index_page(self, name: str, sha256: str) -> bytes:
        content = self.finished.read_of_run(name)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise OutputMismatch(
                f"the index page {self.finished.store.join(name)} is damaged: its sha256 is "
                "not the one in the plan; restore it to retry from this parent"
            )
        return content


def open_parent(store: Store, reasons: Collection[str]) -> RetrySeed:
    """Open a finished output as the parent of a retry.

    Args:
        store: the parent.
        reasons: of the dead letters to run again; those that the parent has none of do not count.

    Raises:
        OutputMismatch: it is not finished, or its plan is gone. Ends the job (exit 3).
        VerifyFailed: it is damaged (exit 7).
    """
    success = read_success(store)
    if success is None:
        raise OutputMismatch(
            f"{store.url} has no {run_paths.SUCCESS}: only a finished output can be retried. Run "
            "its job to its end first (the same `rdu-batch run` resumes it), or correct the URL."
        )
    finished = FinishedOutput.open(store, success)
    present = Totals.from_json(finished.manifest["totals"]).dead_reasons
    chosen = tuple(sorted(set(map(str, reasons)) & set(present)))
    return RetrySeed(finished, Parent(success.manifest_sha256, chosen))
