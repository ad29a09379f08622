"""Rows to durable outcomes: what a worker does with a lease, on one open session.

Runs in the session process, or in the driver's own process under the inline executor. One row at
a time: read, parse, render, tokenize, generate, write the outcome to a local spool; at the end
the spool becomes a segment, or, when the lease is its whole shard, the sealed shard.

Promises: each row of a lease gets exactly one outcome; a row that cannot be predicted is a dead
letter and never stops the lease. Errors that are not the row's own end the lease.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import ArtifactError, RduBatchError, RowError, SessionBroken
from rdu_batch.job.overrides import generation_of
from rdu_batch.job.plan import Plan
from rdu_batch.job.prompt import PromptRenderer
from rdu_batch.job.records import (
    Fields,
    Reason,
    Row,
    Sample,
    dead_line,
    parse_row,
    prediction_line,
)
from rdu_batch.runner.canary import check_canary
from rdu_batch.runner.commits import CommitRecord
from rdu_batch.runner.fencing import check_epoch
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import Answer, Lease, LeaseDone, SealDone, SealTask, Task
from rdu_batch.runner.outcomes import Outcome, Totals, read_outcomes
from rdu_batch.runner.run_layout import SEGMENTS_FOLDER, SegmentName
from rdu_batch.runner.sealing import LineSpool, seal_shard
from rdu_batch.runner.segments import merge_segments
from rdu_batch.runner.session_folder import spool_path
from rdu_batch.sessions.artifact import LocalArtifact
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.decode_loop import generate, row_seed_of
from rdu_batch.sessions.registry import open_session
from rdu_batch.sessions.tokenizer import open_tokenizer
from rdu_batch.storage.output_store import open_output

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rdu_batch.sessions.decode_loop import Generation

#: Details of given-up rows; the same wherever and whenever that happens.
GIVEN_UP = {
    str(Reason.SESSION_KILLED): "the session process died each time it ran this row alone",
    str(Reason.ROW_TIMEOUT): "the row took longer than limits.row_timeout_s each time it ran alone",
}
#: A lease ends early after this long, so that what a kill can lose stays small even where rows
#: turn out much slower than those that its size was taken from.
LONGEST_LEASE_S = 90.0


class LeaseRunner:
    """One worker's open session and everything it needs to run leases of one job."""

    def __init__(self, context: JobContext, spool_folder: Path | None = None) -> None:
        """Open the plan, the artifact, the tokenizer and the session; check the canary.

        Args:
            context: the job.
            spool_folder: where outcomes are written until they are durable, for a watcher that
                outlives this process; None for a folder of its own.

        Raises:
            ArtifactError: the artifact is missing, damaged or for another target. Ends the job.
            OutputMismatch: the store holds another plan. Ends the job.
            SessionBroken: the canary differs from the run's. Ends the worker.
        """
        spec = context.spec
        self._context = context
        self._own_folder = None
        if spool_folder is None:
            self._own_folder = tempfile.TemporaryDirectory(prefix="rdu-batch-lease-")
            spool_folder = Path(self._own_folder.name)
        self._spool_folder = spool_folder
        self._store = open_output(spec.output.url, single_writer=spec.output.single_writer)
        self._plan = context.load_plan(self._store)
        self._reader = RowReader(self._store, self._plan)
        self._renderer = PromptRenderer(spec.prompt)
        session = spec.session
        artifact = fetch_artifact(session.artifact) if session.artifact is not None else None
        if artifact is not None:
            _check_planned(artifact, self._plan)
        self._tokenizer = open_tokenizer(session.kind, artifact, chat=spec.prompt.chat_template)
        self._session = open_session(session.kind, artifact, threads=session.threads)
        check_canary(self._store, self._session)

    def close(self) -> None:
        """Close the session."""
        self._session.close()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def run(
        self,
        task: Task,
        *,
        on_row: Callable[[Row | None], None] = lambda _row: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Do one task to its durable end.

        Args:
            task: a lease or a shard to seal.
            on_row: called with each row before it is begun, with None after it: what happens
                between rows (reading, storing) is no row's doing.
            should_stop: asked between rows; True ends the lease early, its finished rows kept.

        Raises:
            InputError: an input changed since it was pinned. Ends the job.
            OutputOwned: a later epoch exists; nothing was stored. Ends the job.
            StoreError: the store failed. Ends the job.
            SessionBroken: the session failed. Ends the worker; the lease is run elsewhere.
        """
        if isinstance(task, SealTask):
            return self._seal(task)
        spool = LineSpool(spool_path(self._spool_folder, task.lease_id))
        started_s = time.monotonic()
        with spool:
            totals = self._run_rows(task, spool, on_row, should_stop)
        rows_s = time.monotonic() - started_s
        end_row = task.first_row + spool.num_rows
        covers_shard = task.covers_shard and end_row == task.end_row
        self._check_epoch()
        if covers_shard:
            self._seal_spool(task, spool)
        elif spool.num_rows:
            self._put_segment(task, end_row, spool)
        spool.path.unlink(missing_ok=True)
        return LeaseDone(
            task.lease_id, task.shard, task.first_row, end_row, covers_shard, totals, rows_s
        )

    def _run_rows(
        self,
        lease: Lease,
        spool: LineSpool,
        on_row: Callable[[Row | None], None],
        should_stop: Callable[[], bool],
    ) -> Totals:
        totals = Totals()
        latest_end_s = time.monotonic() + LONGEST_LEASE_S
        for row in self._reader.read_rows(lease.first_row, lease.end_row):
            if should_stop() or (totals.rows and time.monotonic() > latest_end_s):
                break
            on_row(row)
            if lease.dead_reason is None:
                outcome = self._run_suspect(row)
            else:
                outcome = self._give_up_row(row, lease.dead_reason)
            on_row(None)
            totals.count(outcome)
            spool.write(outcome.to_bytes())
            spool.flush()  # Before the next row, which may be this process's last.
        return totals

    def _give_up_row(self, row: Row, reason: str) -> Outcome:
        """The dead letter of a row that killed its session each time it ran alone."""
        # Not parsed, so without its id: parsing may be what kills the session.
        line = dead_line(row, reason=reason, detail=GIVEN_UP[reason], id_text=None)
        return Outcome(False, reason, line)

    def _run_suspect(self, row: Row) -> Outcome:
        """Run a row; whatever it raises beyond a RowError is said together with the row.

        Raises:
            SessionBroken: with the row's ordinal. Ends the worker; the row is run again, alone.
        """
        try:
            return self._run_row(row)
        except SessionBroken as error:
            raise SessionBroken(str(error), row.ordinal) from error
        except RduBatchError:
            raise
        except Exception as error:
            # Anything else (no memory, a failing library) is unknown: the session may be in any
            # state, and this row may be why.
            raise SessionBroken(traceback.format_exc().strip(), row.ordinal) from error

    def _run_row(self, row: Row) -> Outcome:
        """The one outcome of a row; a RowError becomes its dead letter."""
        spec = self._context.spec
        fields: Fields | None = None
        try:
            fields = parse_row(row)
            generations = self._generate(row, fields)
        except RowError as error:
            id_field = spec.input.id_field
            id_text = fields.texts.get(id_field) if fields and id_field is not None else None
            line = dead_line(row, reason=error.reason, detail=error.detail, id_text=id_text)
            return Outcome(False, str(error.reason), line)
        num_prompt_tokens = generations[0].num_prompt_tokens
        line = prediction_line(
            row,
            fields,
            id_field=spec.input.id_field,
            carry=spec.input.carry,
            num_prompt_tokens=num_prompt_tokens,
            samples=[
                Sample(one.text, str(one.finish_reason), one.num_generated_tokens, one.logprobs)
                for one in generations
            ],
        )
        return Outcome(
            True,
            ",".join(one.finish_reason for one in generations),
            line,
            num_prompt_tokens,
            sum(one.num_generated_tokens for one in generations),
        )

    def _generate(self, row: Row, fields: Fields) -> list[Generation]:
        """Every sample of a row, in order. Raises RowError: all of them or none."""
        spec = self._context.spec
        settings = generation_of(fields, spec.generation)
        prompt = self._renderer.render(fields)
        prompt_ids = self._tokenizer.encode(prompt, date=spec.prompt.date)
        return [
            generate(
                self._session,
                self._tokenizer,
                prompt_ids,
                settings,
                row_seed=row_seed_of(settings.seed, row.path, row.line, sample),
            )
            for sample in range(settings.num_samples)
        ]

    def _check_epoch(self) -> None:
        """Before anything is stored: a worker that was paused stops here."""
        check_epoch(self._store, self._context.epoch, self._context.token)

    def _put_segment(self, lease: Lease, end_row: int, spool: LineSpool) -> None:
        segment = SegmentName(
            lease.shard,
            lease.first_row,
            end_row,
            self._context.epoch,
            lease.lease_id,
            spool.sha256,
        )
        self._store.put_file(segment.name, str(spool.path))

    def _seal_spool(self, lease: Lease, spool: LineSpool) -> None:
        with spool.path.open("rb") as lines:
            seal_shard(self._store, self._plan, self._plan.shard(lease.shard), read_outcomes(lines))

    def _seal(self, task: SealTask) -> SealDone:
        self._check_epoch()
        shard = self._plan.shard(task.shard)
        names = self._store.list_names(f"{SEGMENTS_FOLDER}/{task.shard:05d}")
        segments = [name for text in names if (name := SegmentName.parse(text)) is not None]
        outcomes = merge_segments(self._store, segments, shard.first_row, shard.end_row)
        sealed = seal_shard(self._store, self._plan, shard, outcomes)
        if isinstance(sealed, CommitRecord):
            # Nobody reads the segments of a committed shard; a resume need not list them.
            for segment in segments:
                self._store.delete(segment.name)
            return SealDone(task.shard, sealed.totals)
        return SealDone(task.shard, Totals(), tuple(sealed))


def _check_planned(artifact: LocalArtifact, plan: Plan) -> None:
    """The artifact that lies at the job's URL must be the one that the plan was made with."""
    found, wanted = artifact.artifact.digest, plan.decides["artifact_digest"]
    if found != wanted:
        raise ArtifactError(
            f"{artifact.artifact.url} was changed while the job was unfinished: its digest is "
            f"{found}, the plan's is {wanted}. Put the old artifact back, or choose another "
            "output.url for the new one."
        )
