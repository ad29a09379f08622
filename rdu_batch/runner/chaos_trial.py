"""One chaos trial: a run that meets a fault, runs that go on from what it left, and what is seen.

Every run is a process of its own, and so is every look at the output. Nothing is judged here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdu_batch.dataset.planning import load_plan
from rdu_batch.errors import RduBatchError
from rdu_batch.report.progress import Silent
from rdu_batch.runner.chaos_children import ChildEnd, in_child
from rdu_batch.runner.chaos_job import SmallJob
from rdu_batch.runner.chaos_points import Fault, Point
from rdu_batch.runner.chaos_promises import Evidence, RunEnd
from rdu_batch.runner.commits import committed_shards, published_names, read_commits
from rdu_batch.runner.run_job import run_job
from rdu_batch.runner.verify import verify_output
from rdu_batch.storage.failpoint import FAULT_VARIABLE, STRUCK, Failpoint, Strike, read_journal
from rdu_batch.storage.store import Store, open_store

#: Runs without a fault that may be needed until the job is complete.
MAX_RERUNS = 2
INTERNAL_ERROR = RduBatchError.exit_code


@dataclass(frozen=True)
class Bench:
    """Where and how trials are run.

    Args:
        job: the small job.
        scratch: URL of the folder for outputs; each trial has one of its own in it.
        folder: on the local disk, for journals, marks and temporary files.
        run_timeout_s: a run that takes longer is killed, and that is a violation.
    """

    job: SmallJob
    scratch: str
    folder: Path
    run_timeout_s: float

    def output_url(self, name: str) -> str:
        """Of a trial."""
        return f"{self.scratch.rstrip('/')}/{name}"


class TrialRun:
    """The runs of one trial, one after the other.

    Args:
        bench: where.
        name: of the trial; of its folders.
    """

    def __init__(self, bench: Bench, name: str) -> None:
        self._bench = bench
        #: Local: the journal, and what each run leaves beside its output.
        self.folder = bench.folder / name
        self._url = bench.output_url(name)
        self._num_calls = 0
        self.ends: list[RunEnd] = []
        self.calls: list[Any] = []
        self.looks: list[dict[str, Any] | None] = []
        self.folder.mkdir(parents=True)

    def run(self, strike: Strike | None = None) -> RunEnd:
        """One run on the inline executor, in a process of its own."""
        marks = self.folder / f"run-{len(self.ends)}"
        failpoint = Failpoint(str(self.folder), str(marks), strike)
        end = in_child(
            lambda: run_and_look(self._bench.job, self._url, failpoint),
            marks,
            timeout_s=self._bench.run_timeout_s,
        )
        return self.note(run_end_of(end, self._bench.run_timeout_s), _look_of(end))

    def note(self, end: RunEnd, look: dict[str, Any] | None) -> RunEnd:
        """Add a run that was made, here or elsewhere."""
        calls = read_journal(self.folder)
        self.ends.append(end)
        self.calls.append(calls[self._num_calls :])
        self.looks.append(look)
        self._num_calls = len(calls)
        return end

    def finish(self) -> None:
        """Run without a fault until the job is complete, then once more."""
        if not self._is_complete():
            for _ in range(MAX_RERUNS):
                self.run()
                if self._is_complete():
                    break
        if self._is_complete():
            self.run()

    def evidence(self, num_before: int, *, is_struck: bool) -> Evidence:
        """All that was seen; after ``finish``."""
        is_complete = any(_is_success(end) for end in self.ends[:-1])
        look = self.looks[-2 if is_complete else -1] or {}
        after = self.looks[-1] if is_complete else None
        return Evidence(
            ends=self.ends,
            num_before=num_before,
            calls=self.calls,
            is_struck=is_struck,
            objects=look.get("objects", {}),
            objects_after=after["objects"] if after else None,
            problems=look.get("problems", ["the output could not be looked at"]),
            num_rows=look.get("rows", 0),
            unsealed=(after or look).get("unsealed", []),
        )

    def is_struck(self, run: int) -> bool:
        """Whether a run met its fault."""
        return (self.folder / f"run-{run}" / STRUCK).exists()

    def remove(self) -> None:
        """Empty the trial's output and its local folder."""
        scratch, name = self._bench.scratch, self.folder.name
        in_child(
            lambda: open_store(scratch).delete_folder(name),
            self.folder / "remove",
            timeout_s=self._bench.run_timeout_s,
        )
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_complete(self) -> bool:
        return bool(self.ends) and _is_success(self.ends[-1])


def run_trial(bench: Bench, name: str, fault: Fault | None, point: Point | None) -> Evidence:
    """Run one trial; without a fault, or with the kill alone that precedes ``point``.

    Args:
        bench: where.
        name: of the trial.
        fault: at ``point``; None for none.
        point: where; its ``killed_at`` asks for a run before, killed there.
    """
    trial = TrialRun(bench, name)
    try:
        if point is not None and point.killed_at is not None:
            trial.run(point.killed_at.strike(Fault.DRIVER_AFTER))
        num_before = len(trial.ends)
        trial.run(point.strike(fault) if fault and point else None)
        is_struck = trial.is_struck(num_before)
        trial.finish()
        return trial.evidence(num_before, is_struck=is_struck)
    finally:
        trial.remove()


def run_and_look(job: SmallJob, url: str, failpoint: Failpoint) -> dict[str, Any]:
    """In a child: run the job as the command line does, then look at its output."""
    # What a killed run leaves in the temporary folder goes with the trial's.
    os.environ["TMPDIR"] = tempfile.tempdir = failpoint.marks
    os.environ[FAULT_VARIABLE] = failpoint.to_json()
    end = _run(job, url)
    return {"end": vars(end), "look": look_at(open_store(url))}


def _run(job: SmallJob, url: str) -> RunEnd:
    try:
        summary = run_job(job.spec(url), executor="inline", progress=Silent())
    except RduBatchError as error:
        return RunEnd(0, error.exit_code, error=f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - what the command line calls an internal error
        traceback.print_exc()
        return RunEnd(0, INTERNAL_ERROR, error=f"internal error: {error!r}")
    return RunEnd(0, summary.exit, summary.state)


def look_at(store: Store) -> dict[str, Any]:
    """Read everything an output holds, and verify it; what cannot be read is a problem."""
    look: dict[str, Any] = {"objects": {}, "problems": [], "rows": 0, "unsealed": []}
    try:
        for name in store.list_names("", recursive=True):
            look["objects"][name] = hashlib.sha256(store.read(name)).hexdigest()
        found = verify_output(store)
        look |= {"problems": found.problems, "rows": found.rows, "unsealed": _unsealed(store)}
    except RduBatchError as error:
        look["problems"] = [f"{type(error).__name__}: {error}"]
    return look


def _unsealed(store: Store) -> list[str]:
    plan = load_plan(store)
    if plan is None:
        return []
    records = read_commits(store, committed_shards(store))
    return [
        file.name
        for record in records
        for file, _ in published_names(record, plan)
        if not store.exists(file.name)
    ]


def run_end_of(end: ChildEnd, timeout_s: float) -> RunEnd:
    """How a run ended, from how its process did."""
    if end.is_late:
        return RunEnd(0, INTERNAL_ERROR, error=f"the run did not end within {timeout_s:g} s")
    if end.signal:
        return RunEnd(end.signal, 0)
    if end.result is None:
        return RunEnd(0, INTERNAL_ERROR, error=f"the run left no result: {end.stderr[-300:]}")
    return RunEnd(**end.result["end"])


def _look_of(end: ChildEnd) -> dict[str, Any] | None:
    return end.result["look"] if end.result else None


def _is_success(end: RunEnd) -> bool:
    return not end.signal and end.exit == 0
