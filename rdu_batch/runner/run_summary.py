"""The summary of a run: what the job came to, and what this epoch did of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rdu_batch.report.summary import COMPLETE, EXIT_TOO_MANY_DEAD, Summary
from rdu_batch.runner.delta_seed import reused_of
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.worker_seconds import WorkerSeconds

if TYPE_CHECKING:
    from rdu_batch.job.spec import JobSpec
    from rdu_batch.job.speed import Interval
    from rdu_batch.storage.store import Store

EXIT_COMPLETE = 0


@dataclass
class Epoch:
    """One driver's part in a job; nothing but its end where it found the job complete."""

    #: See ``Summary.state``.
    state: str
    wall_s: float = 0.0
    #: Of the rows that this epoch's workers did.
    leased: Totals = field(default_factory=Totals)
    num_workers: int = 0
    num_workers_lost: int = 0
    #: Nothing where no worker was wanted.
    worker_seconds: WorkerSeconds = field(default_factory=WorkerSeconds)
    predicted_wall_s: Interval | None = None


def summary_of(
    spec: JobSpec,
    store: Store,
    totals: Totals,
    num_shards: int,
    epoch: Epoch,
    job_digest: str,
) -> Summary:
    """The summary of a finished job, with exit code 5 if more rows are dead than it allows.

    Raises:
        OutputMismatch: what the output says that it took over is damaged. Ends the job.
        StoreError: the store failed.
    """
    reused = reused_of(store)
    num_reused = reused.num_rows if reused else 0
    num_resumed = max(0, totals.rows - epoch.leased.rows - num_reused)
    allowed = spec.limits.allows(totals.dead, totals.rows)
    return Summary(
        name=spec.name,
        state=epoch.state,
        exit=EXIT_COMPLETE if allowed else EXIT_TOO_MANY_DEAD,
        output=store.url,
        rows=totals.rows,
        predictions=totals.predictions,
        dead=totals.dead,
        shards=num_shards,
        prompt_tokens=totals.prompt_tokens,
        generated_tokens=totals.generated_tokens,
        finish_reasons=totals.finish_reasons,
        dead_reasons=totals.dead_reasons,
        rows_resumed=num_resumed if epoch.state == COMPLETE else 0,
        wall_s=epoch.wall_s,
        tokens_per_s=epoch.leased.generated_tokens / epoch.wall_s if epoch.wall_s > 0 else 0.0,
        workers=epoch.num_workers,
        workers_lost=epoch.num_workers_lost,
        worker_seconds=epoch.worker_seconds.to_json(),
        job_digest=job_digest,
        predicted_wall_s=epoch.predicted_wall_s,
        reused=reused,
    )
