"""A plan looked ahead of: some of its rows rehearsed, and what a run over all of them comes to.

Promises: nothing is written; what is read is bounded by the sizes of the samples. Does not: start
anything.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rdu_batch.dataset.planning import PlannedJob
from rdu_batch.dataset.reader import RowReader
from rdu_batch.dataset.sampling_rows import (
    SampleFrame,
    frame_of,
    read_sample,
    reader_of_unsaved,
    sampled_ordinals,
)
from rdu_batch.report.prediction import Prediction
from rdu_batch.report.rendered_rows import rendered_lines
from rdu_batch.report.wording import counted
from rdu_batch.runner.delta_seed import open_since
from rdu_batch.runner.rehearsal import Rehearsal, SampledKind, planned_workers, predict, speed_of
from rdu_batch.runner.scheduler import EARLY_STOP_ROWS
from rdu_batch.runner.unchanged import same_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    #: Which rows could not be sampled, and what is taken for them; None where all could.
    not_sampled: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The keys that ``plan`` adds to its JSON line: only what was asked for."""
        keys: dict[str, Any] = {}
        if self.not_sampled is not None:
            keys["not_sampled"] = self.not_sampled
        if self.rows:
            keys["sample"] = [row.to_json() for row in self.rows]
        if self.prediction is not None:
            keys["prediction"] = self.prediction.to_json()
        return keys

    def to_lines(self) -> list[str]:
        """For people."""
        lines = [] if self.not_sampled is None else [f"{'sampling':<10}{self.not_sampled}"]
        lines += [] if self.prediction is None else self.prediction.to_lines()
        if self.rows:
            lines += ["sampled rows", *rendered_lines([row.to_json() for row in self.rows])]
        return lines


@dataclass(frozen=True)
class Unchanged:
    """What a run with ``input.since`` will take over whole: files that are as they were."""

    since: str
    num_files: int
    #: Their ordinals ``[first, end)`` in the plan, ascending.
    ranges: tuple[tuple[int, int], ...]

    @property
    def num_rows(self) -> int:
        """Of all of them."""
        return sum(end - first for first, end in self.ranges)

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
    return Unchanged(seed.url, len(same), tuple((one.first_row, one.end_row) for one in same))


def look_ahead(
    spec: JobSpec,
    source: Store | PlannedJob,
    plan: Plan,
    *,
    num_shown: int,
    num_sampled: int,
    reused: Sequence[tuple[int, int]] = (),
) -> Outlook:
    """Rehearse rows of a plan.

    Args:
        spec: the job.
        source: the output that holds the plan's index, or a plan that none holds yet.
        plan: the plan.
        num_shown: rows to show; 0 for none.
        num_sampled: rows to predict from; 0 for no prediction.
        reused: ordinals ``[first, end)`` of rows that will not be run, ascending: nothing is
            predicted from them.

    Raises:
        InputError: an input is gone or changed since the plan was made. Ends the job.
        ArtifactError: there is no artifact. Ends the job.
    """
    if not num_shown and not num_sampled:
        return Outlook((), None)
    rehearsal = Rehearsal(spec)
    with _reader_of(source, plan) as reader:
        frame = _frame_of(source, plan, reader)

        def rehearsed(ordinals: list[int]) -> list[RehearsedRow]:
            return rehearsal.rehearse(read_sample(reader, ordinals))

        shown: tuple[RehearsedRow, ...] = ()
        if num_shown:
            drawn = frame.draw(num_shown, plan.job_digest)
            shown = tuple(rehearsed(sorted(drawn.anywhere + drawn.near_start)))
        prediction = None
        if num_sampled:
            num_run = plan.num_rows - sum(end - first for first, end in reused)
            # Of a job that has nothing to run, some rows show at least that rows can be read.
            to_run = frame.without(reused) if num_run else frame
            drawn = to_run.draw(num_sampled, plan.job_digest)
            samples = rehearsed(drawn.anywhere), rehearsed(drawn.near_start)
            kinds = _kinds_of(to_run, samples, num_run)
            prediction = _predicted(spec, plan, rehearsal, kinds, num_run)
    return Outlook(shown, prediction, _not_sampled(frame))


def _predicted(
    spec: JobSpec, plan: Plan, rehearsal: Rehearsal, kinds: list[SampledKind], num_run: int
) -> Prediction:
    if plan.num_rows and not any(kind.sample for kind in kinds):
        return Prediction(None, None, (), note="no row could be sampled")
    speed, why_not = speed_of(spec)
    workers = planned_workers(spec, plan.num_shards)
    prediction = predict(rehearsal, kinds, speed, workers, why_not)
    # A retry runs rows that were dead letters already: it goes on to its end.
    is_large = num_run >= EARLY_STOP_ROWS
    return replace(prediction, may_stop_early=is_large and plan.parent is None)


def _frame_of(source: Store | PlannedJob, plan: Plan, reader: RowReader) -> SampleFrame:
    if isinstance(source, PlannedJob) and source.recut.num_files:
        return frame_of(reader.input_files(), plan.num_rows)
    return SampleFrame(((0, plan.num_rows),))


def _kinds_of(
    frame: SampleFrame,
    samples: tuple[Sequence[RehearsedRow], Sequence[RehearsedRow]],
    num_run: int,
) -> list[SampledKind]:
    """Each kind with the rows that it stands for: its own, and those of a kind without a sample."""
    anywhere, near_start = samples
    num_large = min(frame.num_large, num_run)
    if not near_start:
        return [SampledKind(anywhere, num_run)]
    if not anywhere:
        return [SampledKind(near_start, num_run)]
    return [SampledKind(anywhere, num_run - num_large), SampledKind(near_start, num_large)]


def _not_sampled(frame: SampleFrame) -> str | None:
    """What to say of rows that could not be sampled like the others."""
    if not frame.large:
        return None
    files = counted(len(frame.large), "large compressed or .json file")
    num_readable = sum(one.num_readable for one in frame.large)
    if not num_readable and not frame.num_anywhere:
        return f"no rows are sampled: {files} can only be read from the start, or in a run's copies"
    near = (
        f"near the start ({num_readable:,} of {frame.num_large:,} rows)"
        if num_readable
        else f"not at all ({frame.num_large:,} rows)"
    )
    like = "those" if num_readable else "the rows of the other files"
    return f"{files}: sampled {near}, and the rest is taken to be like {like}"


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
    kinds = [SampledKind(sample, num_rows)]
    prediction = predict(rehearsal, kinds, speed, [num_workers], why_not)
    return prediction.runs[0].wall_s if prediction.runs else None
