"""A finished output that another one begins from: read, checked, and handed on as it is.

Promises: nothing is handed on before its sha256 is what the manifest, the commit record or the plan
says; nothing is written to it. Does not: decide which rows are taken over (``retry_seed``,
``delta_seed``).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdu_batch.dataset.planning import load_plan
from rdu_batch.errors import ObjectMissing, OutputMismatch, VerifyFailed
from rdu_batch.job import run_paths
from rdu_batch.job.plan import Parent, Plan, Shard
from rdu_batch.runner.commits import CommitRecord, SealedFile, create_commit, publish
from rdu_batch.runner.kept_rows import read_shard
from rdu_batch.runner.manifest import Success
from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.published import fetch_file
from rdu_batch.runner.run_layout import commit_record, row_digests, sealed
from rdu_batch.runner.sealing import check_plan
from rdu_batch.runner.verify import read_finished
from rdu_batch.storage.store import Store


@dataclass(frozen=True)
class FinishedOutput:
    """A finished output with its run folder; only read."""

    store: Store
    plan: Plan
    manifest: dict[str, Any]
    manifest_sha256: str

    @classmethod
    def open(cls, store: Store, success: Success) -> FinishedOutput:
        """Open an output whose ``_SUCCESS`` says this.

        Raises:
            OutputMismatch: its plan is gone, or another job's. Ends the job (exit 3).
            VerifyFailed: it is damaged (exit 7).
        """
        manifest = read_finished(store)
        plan = load_plan(store)
        if plan is None:
            raise OutputMismatch(
                f"{store.join(run_paths.PLAN)} is gone: what begins from a finished output needs "
                "its plan. Name the output that still has its _run folder."
            )
        if plan.job_digest != success.job_digest:
            raise OutputMismatch(
                f"{store.url}: its plan is of the job {plan.job_digest}, its {run_paths.SUCCESS} "
                f"of {success.job_digest}: one of the two was changed. Restore it."
            )
        return cls(store, plan, manifest, success.manifest_sha256)

    def entries(self) -> list[dict[str, Any]]:
        """What the manifest says of each shard, in order."""
        return list(self.manifest["parts"])

    def record(self, entry: dict[str, Any]) -> CommitRecord:
        """The commit record of a shard, which must agree with its entry.

        Raises:
            OutputMismatch: it is gone, or of another plan. Ends the job.
            VerifyFailed: it says something else than the manifest. Ends the job.
        """
        name = commit_record(int(entry["shard"]))
        record = CommitRecord.from_bytes(self.read_of_run(name))
        check_plan(self.store, record, self.plan)
        if not _agree(record, entry):
            raise VerifyFailed(
                f"{self.store.join(name)} does not name the files that {run_paths.MANIFEST} names; "
                "one of the two is damaged"
            )
        return record

    def read_of_run(self, name: str) -> bytes:
        """An object of the run folder.

        Raises:
            OutputMismatch: it is gone. Ends the job.
        """
        try:
            return self.store.read(name)
        except ObjectMissing as error:
            raise OutputMismatch(
                f"{self.store.join(name)} is gone: what begins from a finished output needs its "
                "whole _run folder beside segments and sealed files. Name the output that still "
                "has it."
            ) from error

    def row_digests_of(self, record: CommitRecord) -> bytes | None:
        """The row digests of a shard's predictions, in order; None where it has none.

        Raises:
            OutputMismatch: they are gone. Ends the job.
            VerifyFailed: they are damaged. Ends the job.
        """
        file = record.row_digests
        if file is None:
            return None
        content = self.read_of_run(file.name)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise VerifyFailed(
                f"{self.store.join(file.name)} is damaged: its sha256 is not the one in the commit "
                "record; restore it"
            )
        return content

    def outcomes(self, entry: dict[str, Any], shard: Shard) -> Generator[Outcome]:
        """The outcomes of a shard in row order, through local copies of its files.

        The copies are there until the generator is closed.

        Raises:
            OutputMismatch: its run folder is not whole. Ends the job.
            VerifyFailed: it is damaged. Ends the job.
        """
        digests = self.row_digests_of(self.record(entry))
        with tempfile.TemporaryDirectory(prefix="rdu-batch-parent-") as name:
            folder = Path(name)
            part, dead = folder / entry["name"], folder / "dead"
            fetch_file(self.store, entry, part)
            if entry["dead"]:
                fetch_file(self.store, entry["dead"], dead)
            else:
                dead.touch()
            try:
                yield from read_shard(part, dead, shard, digests)
            except ValueError as error:
                raise VerifyFailed(f"{self.store.url}: shard {shard.index}: {error}") from error

    def copy_shard(self, store: Store, plan: Plan, entry: dict[str, Any]) -> None:
        """Commit a shard of another output as this one has it: the same bytes under that plan.

        Raises:
            OutputMismatch: its run folder is not whole, or the other output has another plan.
            VerifyFailed: it is damaged. Ends the job.
            StoreError: a store failed. Ends the job.
        """
        record = self.record(entry)
        # The same for whoever copies, so that a repetition writes the same objects again.
        attempt = plan.digest.removeprefix("sha256:")[:16]
        digests = self.row_digests_of(record)
        with tempfile.TemporaryDirectory(prefix="rdu-batch-parent-") as folder:

            def put(kind: str, file: SealedFile, entry: dict[str, Any]) -> SealedFile:
                path = Path(folder, kind)
                fetch_file(self.store, entry, path)
                name = sealed(record.shard, kind, attempt, "." + file.name.partition(".")[2])
                store.put_file(name, str(path))
                return SealedFile(name, file.num_rows, file.num_bytes, file.sha256)

            ours = CommitRecord(
                shard=record.shard,
                plan_digest=plan.digest,
                attempt=attempt,
                part=put("part", record.part, entry),
                dead=put("dead", record.dead, entry["dead"]) if record.dead else None,
                totals=record.totals,
                row_digests=_put_digests(store, record, digests),
            )
        stands = create_commit(store, ours)
        check_plan(store, stands, plan)
        publish(store, stands, plan)


def parent_in(manifest: dict[str, Any]) -> Parent | None:
    """The parent that a manifest names; None for an output of ``run``."""
    return Parent.from_json(manifest["parent"]) if "parent" in manifest else None


def check_parent(store: Store, found: Parent | None, wanted: Parent | None) -> None:
    """Check that an output began as this command would begin it.

    Args:
        store: the output.
        found: the parent in its plan or manifest; None for an output that began with nothing.
        wanted: the parent of this command; None for a ``run`` without ``input.since``.

    Raises:
        OutputMismatch: it did not; says how to go on with it. Ends the job.
    """
    if found == wanted:
        return
    raise OutputMismatch(
        f"{store.url} began with {_told(found)}; this command would begin it with "
        f"{_told(wanted)}. Go on with the command, the job file and the parent that began it, or "
        "choose another output."
    )


def _told(parent: Parent | None) -> str:
    if parent is None:
        return "nothing: it is of `rdu-batch run` without input.since"
    manifest = f"parent manifest {parent.manifest_sha256[:16]}..."
    if parent.reasons is None:
        return f"what is unchanged since another output (input.since, {manifest})"
    reasons = ", ".join(parent.reasons) or "none"
    return f"a retry of dead letters by `rdu-batch retry-dead` ({manifest}, reasons {reasons})"


def _put_digests(store: Store, record: CommitRecord, content: bytes | None) -> SealedFile | None:
    file = record.row_digests
    if file is None or content is None:
        return None
    name = row_digests(record.shard, file.sha256)
    store.put_whole(name, content)
    return SealedFile(name, file.num_rows, file.num_bytes, file.sha256)


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
