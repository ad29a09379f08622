"""Audit: runs random rows of a finished output again and compares every byte.

``verify`` trusts what the run computed and checks that it is still there; ``audit`` asks whether it
was right. The promise "same plan, same bytes" makes that simple: the line of a row that is run
again must be the published line, byte for byte.

Dead letters are rows like any other, but for those of ``NOT_REPEATABLE`` reasons: whether a session
dies or a row is slow is the machine's doing, not the row's, so these are counted as not audited.
Another machine may lawfully compute other bits: where the canary is not the run's, nothing is
compared. Nothing is written to the output.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from rdu_batch.dataset.planning import load_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import (
    Interrupted,
    ObjectMissing,
    OutputMismatch,
    SessionBroken,
    StoppedEarly,
    VerifyFailed,
)
from rdu_batch.job.plan import Plan
from rdu_batch.job.reasons import Reason
from rdu_batch.job.records import row_key
from rdu_batch.report.progress import Progress
from rdu_batch.report.wording import counted
from rdu_batch.runner.published import outcome_of, read_lines
from rdu_batch.runner.rerun import RowRerun
from rdu_batch.runner.row_comparison import Difference, PublishedLine, RowKey, compare
from rdu_batch.runner.stops import StopRequest
from rdu_batch.runner.verify import read_finished
from rdu_batch.storage.store import Store

#: Reasons of dead letters that say nothing of what the row would come to elsewhere.
NOT_REPEATABLE = frozenset({str(Reason.SESSION_KILLED), str(Reason.ROW_TIMEOUT)})
#: Progress is told about this often in an audit.
NUM_REPORTS = 10


@dataclass
class AuditReport:
    """What an audit found."""

    output: str
    #: Gives the same rows again.
    seed: int
    #: Rows of the plan.
    rows: int
    sampled: int
    equal: int = 0
    #: Dead letters that were not run again, by reason.
    not_audited: dict[str, int] = field(default_factory=dict)
    #: Rows that ended their session now, with its last words.
    broken: dict[RowKey, str] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)

    @property
    def exit(self) -> int:
        """7 if a row differs, else 10 if a row could not be run again, else 0."""
        if self.differences:
            return VerifyFailed.exit_code
        return StoppedEarly.exit_code if self.broken else 0

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            **vars(self),
            "broken": [{"row": list(row), "cause": text} for row, text in self.broken.items()],
            "differences": [one.to_json() for one in self.differences],
            "exit": self.exit,
        }


def audit_output(
    store: Store,
    *,
    sample: int,
    seed: int,
    artifact: str | None,
    row_timeout_s: float | None,
    progress: Progress,
) -> AuditReport:
    """Run random rows of a finished output again and compare them with what is published.

    Args:
        store: the output; only read.
        sample: how many rows; all of them if there are no more.
        seed: of the choice; uniform over all rows of the plan.
        artifact: see ``rerun.spec_of_plan``.
        row_timeout_s: see ``rerun.spec_of_plan``.
        progress: where to show what is going on.

    Raises:
        VerifyFailed: there is no finished output here, or its manifest is damaged (exit 7).
        OutputMismatch: its run folder is incomplete (exit 3).
        ArtifactError: the artifact is missing or another one, or this machine computes other bits
            than the one that made the output (exit 8).
        InputError: an input is gone or changed (exit 4).
        StoppedEarly: no session starts (exit 10).
        Interrupted: a signal (exit 12).
    """
    stop = StopRequest()
    try:
        with stop.watch(None), stop.raising():
            return _audit(store, sample, seed, artifact, row_timeout_s, progress)
    except Interrupted as error:
        raise Interrupted(
            f"the audit was stopped by {stop.reason}; nothing is judged. Run it again."
        ) from error


def choose_rows(num_rows: int, sample: int, seed: int) -> list[int]:
    """Ordinals of ``sample`` different rows out of ``num_rows``, each as likely; ascending."""
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    return sorted(draw.sample(range(num_rows), min(sample, num_rows)))


def _audit(
    store: Store,
    sample: int,
    seed: int,
    artifact: str | None,
    row_timeout_s: float | None,
    progress: Progress,
) -> AuditReport:
    manifest = read_finished(store)
    plan = load_plan(store)
    if plan is None:
        raise OutputMismatch(
            f"{store.url}: there is no _run/plan.json, so nothing tells which rows the output was "
            "made from. Audit the output that still has its _run folder."
        )
    report = AuditReport(store.url, seed, plan.num_rows, min(sample, plan.num_rows))
    rows = choose_rows(plan.num_rows, sample, seed)
    progress.phase(
        f"audit: {counted(report.sampled, 'row')} of {plan.num_rows:,}, drawn with seed {seed}"
    )
    keys = _keys_of(store, plan, rows)
    to_run: dict[int, list[PublishedLine]] = {}
    for row, lines in _published(store, plan, manifest, keys).items():
        reason = _not_repeatable(lines)
        if reason is None:
            to_run[row] = lines
        else:
            report.not_audited[reason] = report.not_audited.get(reason, 0) + 1
    if to_run:
        with RowRerun(
            store, plan, list(to_run), artifact=artifact, row_timeout_s=row_timeout_s
        ) as rerun:
            rerun.check_canary()
            progress.phase("audit: a session is open, and its canary is the run's")
            _compare_all(rerun, to_run, keys, report, progress)
    return report


def _compare_all(
    rerun: RowRerun,
    to_run: Mapping[int, list[PublishedLine]],
    keys: Mapping[int, RowKey],
    report: AuditReport,
    progress: Progress,
) -> None:
    every = -(-len(to_run) // NUM_REPORTS)
    for number, (row, lines) in enumerate(to_run.items(), start=1):
        try:
            outcome = rerun.run(row)
        except SessionBroken as error:
            report.broken[keys[row]] = str(error)
            continue
        found = list(compare(keys[row], lines, outcome))
        report.differences.extend(found)
        report.equal += not found
        if number % every == 0:
            progress.phase(f"audit: {number:,} of {len(to_run):,} rows run again")


def _keys_of(store: Store, plan: Plan, rows: Sequence[int]) -> dict[int, RowKey]:
    reader = RowReader(store, plan)
    return {
        row: (found.file_index, found.line)
        for row in rows
        for found in reader.read_rows(row, row + 1)
    }


def _published(
    store: Store, plan: Plan, manifest: dict[str, Any], keys: Mapping[int, RowKey]
) -> dict[int, list[PublishedLine]]:
    """The lines that an output has of each of these rows: one, if nothing is wrong."""
    found: dict[int, list[PublishedLine]] = {row: [] for row in keys}
    for shard, rows in groupby(keys, key=lambda row: row // plan.rows_per_shard):
        entry = manifest["parts"][shard]
        row_of = {keys[row]: row for row in rows}
        for file, is_prediction in ((entry, True), (entry["dead"], False)):
            if file:
                for key, line in find_lines(store, file["name"], row_of, is_prediction):
                    found[row_of[key]].append(line)
    return found


def find_lines(
    store: Store, name: str, keys: Collection[RowKey], is_prediction: bool
) -> Iterator[tuple[RowKey, PublishedLine]]:
    """The lines of these rows in a file; none if it is missing. Other lines may be anything.

    Raises:
        VerifyFailed: it is packed and cannot be unpacked. Ends the audit (exit 7).
    """
    try:
        size_bytes = store.stat(name).size_bytes
    except ObjectMissing:
        return
    for number, line in enumerate(_lines_of(store, name, size_bytes), start=1):
        try:
            key = row_key(line)
        except ValueError:
            continue
        if key in keys:
            yield key, PublishedLine(name, number, line, is_prediction)


def _lines_of(store: Store, name: str, size_bytes: int) -> Iterator[bytes]:
    try:
        yield from read_lines(store, name, size_bytes)
    except ValueError as error:
        raise VerifyFailed(
            f"{store.join(name)} is damaged: {error}; run `rdu-batch verify {store.url}`"
        ) from error


def _not_repeatable(lines: Sequence[PublishedLine]) -> str | None:
    """The reason of a dead letter that cannot be asked for again; None for any other row."""
    if len(lines) != 1 or lines[0].is_prediction:
        return None
    try:
        reason = outcome_of(lines[0].line, is_prediction=False).label
    except (ValueError, KeyError, TypeError):
        return None
    return reason if reason in NOT_REPEATABLE else None
