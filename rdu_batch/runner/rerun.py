"""Rows of a finished output run again, one at a time, beside the output and never into it.

A scratch folder gets the output's plan and the index pages of the rows; a session process runs
leases of one row there as a worker does, and their segments are read back. So a row is read,
rendered, generated and written by the very code of a run, and a session that crashes takes nobody
with it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rdu_batch.errors import (
    ArtifactError,
    ObjectMissing,
    OutputMismatch,
    SessionBroken,
    StoppedEarly,
    UsageError,
)
from rdu_batch.job.plan import Plan
from rdu_batch.job.run_paths import PLAN
from rdu_batch.job.spec import JobSpec
from rdu_batch.runner.identity import identify_job
from rdu_batch.runner.job_context import JobContext, with_absolute_urls
from rdu_batch.runner.leases import Lease
from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.run_layout import CANARY
from rdu_batch.runner.segments import list_segments, read_segment
from rdu_batch.runner.session_host import SessionHost
from rdu_batch.sessions.registry import FAKE_ARTIFACT_DIGEST
from rdu_batch.storage.store import Store, open_store

#: How often a row is begun, each time in a new session, before its failure is believed.
ATTEMPTS = 2


def spec_of_plan(
    plan: Plan, *, output_url: str, artifact: str | None, row_timeout_s: float | None
) -> JobSpec:
    """The job that a plan was made from, as far as it decides the bytes.

    Args:
        plan: of the output.
        output_url: where the job is to run.
        artifact: URL of the artifact, which a plan does not keep; None for a job without one.
        row_timeout_s: seconds that one row may take, which a plan does not keep either; None for
            the default of ``limits.row_timeout_s``.

    Raises:
        UsageError: the job has an artifact, and none is named (exit 2).
        ArtifactError: there is no artifact, or it is another one than the plan's (exit 8).
    """
    decides = plan.decides
    wanted = decides["artifact_digest"]
    if artifact is None and wanted != FAKE_ARTIFACT_DIGEST:
        raise UsageError(
            f"the output was made with the artifact {wanted}; its plan does not keep where that "
            "lies. Name its folder with --artifact URL."
        )
    document = {
        "version": 1,
        "name": plan.name,
        "input": decides["input"],
        "prompt": decides["prompt"],
        "session": {**decides["session"], "artifact": artifact},
        "generation": decides["generation"],
        "output": {**decides["output"], "url": output_url, "single_writer": True},
        "limits": {} if row_timeout_s is None else {"row_timeout_s": row_timeout_s},
    }
    spec = JobSpec.model_validate_json(json.dumps(document))
    identity = identify_job(spec)
    if identity.artifact_digest != wanted:
        raise ArtifactError(
            f"{artifact}: this artifact's digest is {identity.artifact_digest}, the output was "
            f"made with {wanted}. Name the folder of that one with --artifact."
        )
    if identity.job_digest != plan.job_digest:
        raise OutputMismatch(
            f"{PLAN}: what it says of the job does not have the digest {plan.job_digest} that it "
            "names; it was changed. Restore it."
        )
    return spec


class RowRerun:
    """Runs rows of an output again; a context manager, which ends the session and the scratch.

    Args:
        store: the output; only read.
        plan: its plan.
        rows: ordinals of the rows that will be asked for.
        artifact: see ``spec_of_plan``.
        row_timeout_s: see ``spec_of_plan``.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        rows: Sequence[int],
        *,
        artifact: str | None,
        row_timeout_s: float | None,
    ) -> None:
        self._output = store
        self._plan = plan
        self._folder = tempfile.TemporaryDirectory(prefix="rdu-batch-rerun-")
        self._host: SessionHost | None = None
        try:
            spec = spec_of_plan(
                plan,
                output_url=self._folder.name,
                artifact=artifact,
                row_timeout_s=row_timeout_s,
            )
            self._context = JobContext(with_absolute_urls(spec), plan.digest, 1)
            self._scratch = open_store(self._folder.name)
            self._copy_plan(rows)
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._end_session()
        self._folder.cleanup()

    def check_canary(self) -> None:
        """Open a session and compare its canary with that of the run.

        Raises:
            ArtifactError: they differ: here, other bits are right (exit 8).
            OutputMismatch: the output keeps no canary (exit 3).
            StoppedEarly: no session starts (exit 10).
        """
        try:
            wanted = json.loads(self._output.read(CANARY))["canary"]
        except ObjectMissing as error:
            raise OutputMismatch(
                f"{self._output.join(CANARY)} is gone: without the run's canary, damage cannot be "
                "told from a machine that computes other bits. Restore it."
            ) from error
        self._session()
        found = json.loads(self._scratch.read(CANARY))["canary"]
        if found != wanted:
            raise ArtifactError(
                f"this machine computes other bits than the one that made {self._output.url}: its "
                f"canary is {found}, the run's is {wanted}. That is no damage of the output, and "
                "nothing was compared. Audit it on a machine of the kind that ran the job, with "
                "the same library versions and threads per session."
            )

    def run(self, row: int) -> Outcome:
        """Run one row, in a new session if it, or the row before it, ended the last one.

        Raises:
            SessionBroken: the row ended its session each time.
            StoppedEarly: no session starts (exit 10).
            InputError: an input changed since it was pinned (exit 4).
        """
        shard = row // self._plan.rows_per_shard
        lease = Lease(row, shard, row, row + 1, covers_shard=False)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._session().run(lease)
                break
            except SessionBroken:
                self._end_session()
                if attempt == ATTEMPTS:
                    raise
        return self._take_outcome(row)

    def _take_outcome(self, row: int) -> Outcome:
        for segment in list_segments(self._scratch):
            outcomes = read_segment(self._scratch, segment)
            if segment.first_row == row and outcomes:
                self._scratch.delete(segment.name)
                return outcomes[0]
        raise SessionBroken(f"the session process left no outcome of row {row}", row)

    def _session(self) -> SessionHost:
        """The session process, started if there is none."""
        if self._host is None:
            self._host = SessionHost(self._context)
            try:
                self._host.wait_ready(self._context.spec.limits.start_timeout_s)
            except SessionBroken as error:
                raise StoppedEarly(f"no session starts: {error}") from error
        return self._host

    def _end_session(self) -> None:
        if self._host is not None:
            self._host.close()
            self._host = None

    def _copy_plan(self, rows: Sequence[int]) -> None:
        """Put the plan and the index pages of these rows into the scratch folder."""
        for page in self._plan.index_pages:
            end_row = page.first_row + page.num_rows
            if any(page.first_row <= row < end_row for row in rows):
                try:
                    content = self._output.read(page.name)
                except ObjectMissing as error:
                    raise OutputMismatch(
                        f"the index page {self._output.join(page.name)} is gone; restore it to run "
                        "rows again"
                    ) from error
                self._scratch.put_whole(page.name, content)
        self._scratch.put_whole(PLAN, self._plan.to_bytes())
