"""A plan looked ahead of: some of its rows rehearsed, and what a run over all of them comes to.

Promises: nothing is written; what is read is bounded by the sizes of the samples. Does not: start
anything.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdu_batch.dataset.planning import PlannedJob
from rdu_batch.dataset.reader import RowReader
from rdu_batch.dataset.sampling_rows import read_sample, reader_of_unsaved, sampled_ordinals
from rdu_batch.report.prediction import Prediction
from rdu_batch.report.rendered_rows import rendered_lines
from rdu_batch.report.wording import counted
from rdu_batch.runner.delta_seed import open_since
from rdu_batch.runner.rehearsal import Rehearsal, planned_workers, predict, speed_of
from rdu_batch.runner.unchanged import same_rows

if TYPE_CHECKING:
    from rdu_batch.job.plan import Plan
    from rdu_batch.job.spec import JobSpec
    from rdu_batch.job.speed import Interval
    from rdu_batch.runner.rehearsal import RehearsedRow
    from rdu_batch.storage.store import Store

#: Rows that a run itself looks at before it starts: it has other things to do.
_NUM_SAMPLED_BY_RUN = 20


@dataclass(frozen=True)
class Outlook:
    """Rows to show, and the prediction; None where none was wanted."""

    rows: tuple[RehearsedRow, ...]
    prediction: Prediction | None

    def to_json(self) -> dict[str, Any]:
        """The keys that ``plan`` adds to its JSON line: only what was asked for."""
        keys: dict[str, Any] = {}
        if self.rows:
            keys["sample"] = [row.to_json() for row in self.rows]
        if self.prediction is not None:
            keys["prediction"] = self.prediction.to_json()
        return keys

    def to_lines(self) -> list[str]:
        """For people."""
        lines = [] if self.prediction is None else self.prediction.to_lines()
        if self.rows:
            lines += ["sampled rows", *rendered_lines([row.to_json() for row in self.rows])]
        return lines


@dataclass(frozen=True)
class Unchanged:
    """What a run with ``input.since`` will take over whole: files that are as they were."""

    since: str
    num_files: int
    num_rows: int

    def to_json(self) -> dict[str, Any]:
        """As the summary of the run names it."""
        return {
            "since": self.since,
            "unchanged_files": self.num_files,
            "rows_of_unchanged_files": self.num_rows,
        }

    def to_text(self) -> str:
        """For people."""
        files = counted(self.num_files, "unchanged file")
        return (
            f"{self.num_rows:,} rows of {files} since {self.since}; the run also looks for rows "
            "with the content of an earlier one"
        )


def look_back_since(
    spec: JobSpec, output: Store, decides: dict[str, Any], source: Store | PlannedJob, plan: Plan
) -> Unchanged | None:
    """What ``input.since`` will spare a run; None where a job has none.

    Args:
        spec: the job.
        output: of the job.
        decides: what decides its bytes.
        source: as of ``look_ahead``.
        plan: the plan.

    Raises:
        RduBatchError: as ``open_since`` and ``DeltaSeed.check_job``.
    """
    if spec.input.since is None:
        return None
    seed = open_since(spec.input.since, output)
    seed.check_job(decides)
    before = seed.finished.plan
    there = RowReader(seed.finished.store, before).input_files()
    with _reader_of(source, plan) as reader:
        same = same_rows(reader.input_files(), plan.num_rows, there, before.num_rows)
    return Unchanged(seed.url, len(same), sum(one.end_row - one.first_row for one in same))


def look_ahead(
    spec: JobSpec,
    source: Store | PlannedJob,
    plan: Plan,
    *,
    num_shown: int,
    num_sampled: int,
    num_reused: int = 0,
) -> Outlook:
    """Rehearse rows of a plan.

    Args:
        spec: the job.
        source: the output that holds the plan's index, or a plan that none holds yet.
        plan: the plan.
        num_shown: rows to show; 0 for none.
        num_sampled: rows to predict from; 0 for no prediction.
        num_reused: rows of the plan that will not be run.

    Raises:
        InputError: an input is gone or changed since the plan was made. Ends the job.
        ArtifactError: there is no artifact. Ends the job.
    """
    if not num_shown and not num_sampled:
        return Outlook((), None)
    if isinstance(source, PlannedJob) and source.recut.num_files:
        files = counted(source.recut.num_files, "file")
        note = f"no rows are sampled: {files} can only be read in the copies that a run makes"
        return Outlook((), Prediction(None, None, (), 0, note))
    rehearsal = Rehearsal(spec)
    with _reader_of(source, plan) as reader:

        def rehearsed(size: int) -> list[RehearsedRow]:
            ordinals = sampled_ordinals(plan.num_rows, size, plan.job_digest)
            return rehearsal.rehearse(read_sample(reader, ordinals))

        shown = tuple(rehearsed(num_shown)) if num_shown else ()
        prediction = None
        if num_sampled:
            speed, why_not = speed_of(spec)
            workers = planned_workers(spec, plan.num_shards)
            sample = rehearsed(num_sampled)
            num_rows = plan.num_rows - num_reused
            prediction = predict(rehearsal, sample, num_rows, speed, workers, why_not)
    return Outlook(shown, prediction)


def _reader_of(source: Store | PlannedJob, plan: Plan) -> AbstractContextManager[RowReader]:
    if isinstance(source, PlannedJob):
        return reader_of_unsaved(source)
    return nullcontext(RowReader(source, plan))


def predict_run(
    spec: JobSpec, output: Store, plan: Plan, *, num_rows: int, num_workers: int
) -> Interval | None:
    """Least and most seconds of a run over ``num_rows`` rows of a plan, on so many workers.

    None where no speed is known; then no row is read either.

    Raises:
        InputError: an input is gone or changed since the plan was made. Ends the job.
    """
    speed, why_not = speed_of(spec)
    if speed is None or not num_rows:
        return None
    rehearsal = Rehearsal(spec)
    ordinals = sampled_ordinals(plan.num_rows, _NUM_SAMPLED_BY_RUN, plan.job_digest)
    sample = rehearsal.rehearse(read_sample(RowReader(output, plan), ordinals))
    prediction = predict(rehearsal, sample, num_rows, speed, [num_workers], why_not)
    return prediction.runs[0].wall_s if prediction.runs else None
