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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdu_batch.dataset.planning import load_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.dataset.recut import is_recut, piece_names
from rdu_batch.errors import ObjectMissing, OutputMismatch, VerifyFailed
from rdu_batch.job import run_paths
from rdu_batch.job.plan import Parent, Plan, Shard, diff_decides, digest_of
from rdu_batch.runner.commits import (
    CommitRecord,
    SealedFile,
    committed_shards,
    create_commit,
    publish,
)
from rdu_batch.runner.kept_rows import kept_segments, read_shard
from rdu_batch.runner.manifest import read_success
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.published import fetch_file
from rdu_batch.runner.run_layout import CANARY, commit_record, sealed
from rdu_batch.runner.sealing import check_plan
from rdu_batch.runner.verify import read_finished
from rdu_batch.storage.store import Store


@dataclass(frozen=True)
class RetrySeed:
    """A finished parent, and which of its dead letters are run again."""

    #: The parent's output.
    store: Store
    #: The parent's own plan.
    parent_plan: Plan
    manifest: dict[str, Any]
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
        wanted = self.parent_plan.with_parent(self.parent)
        existing = load_plan(store)
        if existing is None:
            for file in RowReader(self.store, self.parent_plan).input_files():
                if is_recut(file):
                    for name in piece_names(file):
                        store.put_whole(name, self._read_of_run(name))
            for page in wanted.index_pages:
                store.put_whole(page.name, self._index_page(page.name, page.sha256))
            store.create_or_read(run_paths.PLAN, wanted.to_bytes())
            existing = load_plan(store)
        if existing is None or existing.digest != wanted.digest:
            check_parent(store, existing.parent if existing else None, self.parent)
            raise OutputMismatch(
                f"{store.url} holds another plan than its parent {self.store.url}; choose another "
                "output for the retry."
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
        store.create_or_read(CANARY, self._read_of_run(CANARY))
        committed = set(committed_shards(store))
        totals = Totals()
        for entry in self.manifest["parts"]:
            shard = plan.shard(int(entry["shard"]))
            record = self._record(entry)
            totals.add(record.totals)
            if shard.index in committed:
                continue
            confirm()
            with tempfile.TemporaryDirectory(prefix="rdu-batch-retry-") as folder:
                if self.parent.retries(record.totals.dead_reasons):
                    self._keep_rows(store, shard, entry, Path(folder))
                else:
                    self._copy_shard(store, plan, record, entry, Path(folder))
        if totals.to_json() != self.manifest["totals"]:
            raise VerifyFailed(
                f"{self.store.url}: its commit records do not add up to the totals of its manifest"
            )

    def _check_job(self, decides: dict[str, Any]) -> None:
        if digest_of(decides) == self.parent_plan.job_digest:
            return
        differences = diff_decides(self.parent_plan.decides, decides)
        lines = "\n".join(f"  {line}" for line in differences)
        raise OutputMismatch(
            f"the parent {self.store.url} was made by another job than this one, and all rows of "
            f"an output must be made alike. What differs (there -> here):\n{lines}\n"
            "Take the change back; name, limits, workers and the place of the artifact may change"
        )

    def _copy_shard(
        self, store: Store, plan: Plan, record: CommitRecord, entry: dict[str, Any], folder: Path
    ) -> None:
        """Commit a shard as the parent has it: the same bytes under this plan."""
        # The same for whoever seeds, so that a repetition writes the same objects again.
        attempt = plan.digest.removeprefix("sha256:")[:16]

        def put(kind: str, file: SealedFile, entry: dict[str, Any]) -> SealedFile:
            fetch_file(self.store, entry, folder / kind)
            name = sealed(record.shard, kind, attempt, "." + file.name.partition(".")[2])
            store.put_file(name, str(folder / kind))
            return SealedFile(name, file.num_rows, file.num_bytes, file.sha256)

        ours = CommitRecord(
            shard=record.shard,
            plan_digest=plan.digest,
            attempt=attempt,
            part=put("part", record.part, entry),
            dead=put("dead", record.dead, entry["dead"]) if record.dead else None,
            totals=record.totals,
        )
        stands = create_commit(store, ours)
        check_plan(store, stands, plan)
        publish(store, stands, plan)

    def _keep_rows(self, store: Store, shard: Shard, entry: dict[str, Any], folder: Path) -> None:
        """Put a segment for each run of rows that are kept."""
        part, dead = folder / entry["name"], folder / "dead"
        fetch_file(self.store, entry, part)
        fetch_file(self.store, entry["dead"], dead)
        try:
            outcomes = read_shard(part, dead, shard)
            for segment in kept_segments(outcomes, shard, self.parent.reasons, folder / "segment"):
                store.put_file(segment.name, str(folder / "segment"))
        except ValueError as error:
            raise VerifyFailed(f"{self.store.url}: shard {shard.index}: {error}") from error

    def _record(self, entry: dict[str, Any]) -> CommitRecord:
        """The parent's commit record of a shard, which must agree with its manifest."""
        name = commit_record(int(entry["shard"]))
        record = CommitRecord.from_bytes(self._read_of_run(name))
        check_plan(self.store, record, self.parent_plan)
        if not _agree(record, entry):
            raise VerifyFailed(
                f"{self.store.join(name)} does not name the files that {run_paths.MANIFEST} names; "
                "one of the two is damaged"
            )
        return record

    def _index_page(self, name: str, sha256: str) -> bytes:
        content = self._read_of_run(name)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise OutputMismatch(
                f"the index page {self.store.join(name)} is damaged: its sha256 is not the one in "
                "the plan; restore it to retry from this parent"
            )
        return content

    def _read_of_run(self, name: str) -> bytes:
        try:
            return self.store.read(name)
        except ObjectMissing as error:
            raise OutputMismatch(
                f"{self.store.join(name)} is gone: a retry needs the parent's whole _run folder "
                "beside its segments and sealed files. Name the output that still has it."
            ) from error


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
    manifest = read_finished(store)
    plan = load_plan(store)
    if plan is None:
        raise OutputMismatch(
            f"{store.join(run_paths.PLAN)} is gone: a retry needs the parent's plan. Name the "
            "output that still has its _run folder."
        )
    if plan.job_digest != success.job_digest:
        raise OutputMismatch(
            f"{store.url}: its plan is of the job {plan.job_digest}, its {run_paths.SUCCESS} of "
            f"{success.job_digest}: one of the two was changed. Restore it."
        )
    present = Totals.from_json(manifest["totals"]).dead_reasons
    chosen = tuple(sorted(set(map(str, reasons)) & set(present)))
    return RetrySeed(store, plan, manifest, Parent(success.manifest_sha256, chosen))


def parent_in(manifest: dict[str, Any]) -> Parent | None:
    """The parent that a manifest names; None for an output of ``run``."""
    return Parent.from_json(manifest["parent"]) if "parent" in manifest else None


def check_parent(store: Store, found: Parent | None, wanted: Parent | None) -> None:
    """Check that an output began as this command would begin it.

    Args:
        store: the output.
        found: the parent in its plan or manifest; None for an output of ``run``.
        wanted: the parent of this command; None for ``run``.

    Raises:
        OutputMismatch: it did not; says how to go on with it. Ends the job.
    """
    if found == wanted:
        return
    if found is None:
        raise OutputMismatch(
            f"{store.url} is an output of `rdu-batch run`, not of this retry. Choose another "
            "output for the retry."
        )
    kept = f"parent manifest {found.manifest_sha256[:16]}..., reasons {', '.join(found.reasons)}"
    if wanted is None:
        raise OutputMismatch(
            f"{store.url} is a retry of dead letters ({kept}). Go on with the `rdu-batch "
            "retry-dead` command that began it, or choose another output.url."
        )
    raise OutputMismatch(
        f"{store.url} is another retry ({kept}) than asked for (parent manifest "
        f"{wanted.manifest_sha256[:16]}..., reasons {', '.join(wanted.reasons)}). Give the same "
        "parent and reasons to go on with it, or choose another output."
    )


def _agree(record: CommitRecord, entry: dict[str, Any]) -> bool:
    """Whether a commit record and a part's entry in the manifest say the same."""
    wanted = [entry, *([entry["dead"]] if entry["dead"] else [])]
    found = [file for file in (record.part, record.dead) if file is not None]
    totals = record.totals
    return (
        [(file.num_rows, file.num_bytes, file.sha256) for file in found]
        == [(file["rows"], file["bytes"], file["sha256"]) for file in wanted]
        and totals.predictions == entry["rows"]
        and totals.dead == (entry["dead"]["rows"] if entry["dead"] else 0)
        and totals.dead == sum(totals.dead_reasons.values())
    )
