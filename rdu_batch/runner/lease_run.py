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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import ArtifactError
from rdu_batch.job.plan import Plan
from rdu_batch.job.records import Row
from rdu_batch.runner.canary import check_canary
from rdu_batch.runner.commits import CommitRecord
from rdu_batch.runner.fencing import check_epoch
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import Answer, Lease, LeaseDone, SealDone, SealTask, Task
from rdu_batch.runner.outcome_spool import OutcomeSpool
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.row_run import RowRunner, give_up
from rdu_batch.runner.run_layout import SEGMENTS_FOLDER, SegmentName
from rdu_batch.runner.sealing import seal_shard, seal_spool
from rdu_batch.runner.segments import merge_segments
from rdu_batch.runner.session_folder import spool_path
from rdu_batch.runner.time_spent import TaskClock, TimeSpent
from rdu_batch.sessions.artifact import LocalArtifact
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.registry import open_session
from rdu_batch.sessions.tokenizer import open_tokenizer
from rdu_batch.storage.options_in_force import use_storage_options
from rdu_batch.storage.output_store import open_output

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: A lease ends early after this long, so that what a kill can lose stays small even where rows
#: turn out much slower than those that its size was taken from.
LONGEST_LEASE_S = 90.0


class RowWatch(Protocol):
    """Who is told which row is in progress; what happens between rows is no row's doing."""

    def begin(self, row: Row) -> None:
        """This row begins."""

    def end(self, spent: TimeSpent) -> None:
        """It has ended; the task took so long until here."""


class _Unwatched:
    def begin(self, row: Row) -> None:
        pass

    def end(self, spent: TimeSpent) -> None:
        pass


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
        use_storage_options(spec)
        self._context = context
        self._own_folder = None
        if spool_folder is None:
            self._own_folder = tempfile.TemporaryDirectory(prefix="rdu-batch-lease-")
            spool_folder = Path(self._own_folder.name)
        self._spool_folder = spool_folder
        self._store = open_output(spec.output.url, single_writer=spec.output.single_writer)
        self._plan = context.load_plan(self._store)
        self._reader = RowReader(self._store, self._plan)
        session = spec.session
        artifact = fetch_artifact(session.artifact) if session.artifact is not None else None
        if artifact is not None:
            _check_planned(artifact, self._plan)
        tokenizer = open_tokenizer(session.kind, artifact, chat=spec.prompt.chat_template)
        self._session = open_session(session.kind, artifact, threads=session.threads)
        check_canary(self._store, self._session)
        self._rows = RowRunner(spec, self._session, tokenizer)
        self._clock = TaskClock()

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
        watch: RowWatch | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Do one task to its durable end.

        Args:
            task: a lease or a shard to seal.
            watch: told of each row before it is begun and after it has ended.
            should_stop: asked between rows; True ends the lease early, its finished rows kept.

        Raises:
            InputError: an input changed since it was pinned. Ends the job.
            OutputOwned: a later epoch exists; nothing was stored. Ends the job.
            StoreError: the store failed. Ends the job.
            SessionBroken: the session failed. Ends the worker; the lease is run elsewhere.
        """
        self._clock = TaskClock()
        if isinstance(task, SealTask):
            return self._seal(task)
        # Each line outlives this process, whose last row may be the next one.
        spool = OutcomeSpool(spool_path(self._spool_folder, task.lease_id))
        with spool:
            totals = self._run_rows(task, spool, watch or _Unwatched(), should_stop)
        self._clock.has_read()
        end_row = task.first_row + spool.num_rows
        covers_shard = task.covers_shard and end_row == task.end_row
        self._check_epoch()
        if covers_shard:
            seal_spool(self._store, self._plan, self._plan.shard(task.shard), spool.path, totals)
        elif spool.num_rows:
            self._put_segment(task, end_row, spool)
        spool.path.unlink(missing_ok=True)
        self._clock.has_committed()
        span = task.first_row, end_row
        spent = self._clock.spent
        return LeaseDone(task.lease_id, task.shard, *span, covers_shard, totals, spent)

    def _run_rows(
        self,
        lease: Lease,
        spool: OutcomeSpool,
        watch: RowWatch,
        should_stop: Callable[[], bool],
    ) -> Totals:
        totals = Totals()
        latest_end_s = time.monotonic() + LONGEST_LEASE_S
        for row in self._reader.read_rows(lease.first_row, lease.end_row):
            if should_stop() or (totals.rows and time.monotonic() > latest_end_s):
                break
            watch.begin(row)
            if lease.dead_reason is None:
                outcome = self._rows.run(row, self._clock)
            else:
                outcome = give_up(row, lease.dead_reason)
            self._clock.has_read()
            watch.end(self._clock.spent)
            totals.count(outcome)
            spool.write(outcome.to_bytes())
        return totals

    def _check_epoch(self) -> None:
        """Before anything is stored: a worker that was paused stops here."""
        check_epoch(self._store, self._context.epoch, self._context.token)

    def _put_segment(self, lease: Lease, end_row: int, spool: OutcomeSpool) -> None:
        segment = SegmentName(
            lease.shard,
            lease.first_row,
            end_row,
            self._context.epoch,
            lease.lease_id,
            spool.sha256,
        )
        self._store.put_file(segment.name, str(spool.path))

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
            self._clock.has_committed()
            return SealDone(task.shard, sealed.totals, spent=self._clock.spent)
        self._clock.has_committed()
        return SealDone(task.shard, Totals(), tuple(sealed), self._clock.spent)


def _check_planned(artifact: LocalArtifact, plan: Plan) -> None:
    """The artifact that lies at the job's URL must be the one that the plan was made with."""
    found, wanted = artifact.artifact.digest, plan.decides["artifact_digest"]
    if found != wanted:
        raise ArtifactError(
            f"{artifact.artifact.url} was changed while the job was unfinished: its digest is "
            f"{found}, the plan's is {wanted}. Put the old artifact back, or choose another "
            "output.url for the new one."
        )
