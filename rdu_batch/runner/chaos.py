"""Chaos: a small job, run again and again with a fault at every call in turn, and judged each time.

The sweep first runs the job undisturbed, which gives the points and the reference bytes; then it is
killed in a few places, and what goes on from there gives the points of a resume. Each trial then
is a fresh output: the fault, the same command again, and once more.
"""

from __future__ import annotations

import gc
import importlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rdu_batch.errors import RduBatchError, VerifyFailed
from rdu_batch.job.spec import JobSpec
from rdu_batch.report.progress import Progress
from rdu_batch.report.wording import clock, counted
from rdu_batch.runner.chaos_children import ChildEnd, each_in_child, in_child
from rdu_batch.runner.chaos_job import SmallJob, make_small_job
from rdu_batch.runner.chaos_matrix import ChaosReport, Verdict
from rdu_batch.runner.chaos_points import (
    Fault,
    Point,
    Trial,
    choose,
    fault_in,
    places_to_kill,
    points_of,
    trials_of,
    without_known,
)
from rdu_batch.runner.chaos_promises import (
    Evidence,
    Promise,
    Reference,
    judge,
    published_in,
)
from rdu_batch.runner.chaos_ray import (
    RAY_TIMEOUT_S,
    RayTrial,
    choose_draws,
    draw_ray_trials,
    is_ray,
    run_ray_trial,
)
from rdu_batch.runner.chaos_trial import MAX_RERUNS, Bench, run_trial
from rdu_batch.runner.session_host import error_of
from rdu_batch.runner.session_process import error_document
from rdu_batch.storage.store import open_store

#: How often progress is said.
PROGRESS_INTERVAL_S = 10.0
#: A file system in memory, where there is one: half of a run's time is waiting for a disk, and no
#: fault here is a loss of power.
MEMORY_FOLDER = "/dev/shm"  # noqa: S108 - a folder of a random name is made in it
#: Imported once, before the forks, rather than by each child.
_USED_BY_CHILDREN = (
    "rdu_batch.sessions.fake",
    "rdu_batch.sessions.faults",
    "rdu_batch.storage.faults",
    "rdu_batch.storage.local_store",
)


@dataclass(frozen=True)
class ChaosSettings:
    """What a person decides about a sweep.

    Args:
        rows: of the user's job that are used.
        jobs: trials at the same time.
        scratch: URL of a folder for the outputs; None for a local one.
        own_session: run the job's own session.
        only: trials to run, as ``choose`` takes them; all if empty.
        ray_sample: how many trials go through Ray.
        seed: draws those.
        run_timeout_s: a run that takes longer is killed, and that is a violation.
    """

    rows: int = 12
    jobs: int = 2
    scratch: str | None = None
    own_session: bool = False
    only: tuple[str, ...] = ()
    ray_sample: int = 6
    seed: int = 0
    run_timeout_s: float = 60.0


def run_chaos(spec: JobSpec, settings: ChaosSettings, progress: Progress) -> ChaosReport:
    """Run the whole sweep; its scratch is emptied at the end.

    Must be called from a process without threads; see ``chaos_children.py``.

    Raises:
        UsageError: ``only`` names a trial that there is none of.
        VerifyFailed: the undisturbed run breaks a promise already (exit 7).
        RduBatchError: the undisturbed run failed; with its own class and exit code.
    """
    _check_only(settings)
    for module in _USED_BY_CHILDREN:
        importlib.import_module(module)
    # What is here now is never garbage; untouched, its pages stay shared with the children.
    gc.freeze()
    folder = Path(tempfile.mkdtemp(prefix="rdu-batch-chaos-", dir=_fast_folder()))
    name = f"rdu-batch-chaos-{secrets.token_hex(4)}"
    parent = settings.scratch or str(folder)
    try:
        return _Sweep(spec, settings, progress, folder, f"{parent.rstrip('/')}/{name}").run()
    finally:
        in_child(
            lambda: open_store(parent).delete_folder(name),
            folder / "remove",
            timeout_s=settings.run_timeout_s,
        )
        shutil.rmtree(folder, ignore_errors=True)


class _Sweep:
    def __init__(
        self,
        spec: JobSpec,
        settings: ChaosSettings,
        progress: Progress,
        folder: Path,
        scratch: str,
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._progress = progress
        self._folder = folder
        self._scratch = scratch

    def run(self) -> ChaosReport:
        settings = self._settings
        job = self._small_job()
        bench = Bench(job, self._scratch, self._folder / "trials", settings.run_timeout_s)
        points, reference = self._record(bench)
        trials = self._chosen_trials(points)
        self._progress.phase(
            f"{counted(len(points), 'point')}, {counted(len(trials), 'trial')} of "
            f"{counted(job.num_rows, 'row')} in {counted(job.num_shards, 'shard')} each, "
            f"{settings.jobs} at a time"
        )
        verdicts = self._inline(bench, trials, reference)
        return ChaosReport(
            name=self._spec.name,
            scratch=settings.scratch or "a local temporary folder",
            rows=job.num_rows,
            shards=job.num_shards,
            points=points,
            verdicts=[*verdicts, *self._through_ray(bench, reference)],
            seed=settings.seed,
        )

    def _small_job(self) -> SmallJob:
        settings = self._settings

        def make() -> dict[str, Any]:
            try:
                job = make_small_job(
                    self._spec, str(self._folder), settings.rows, own_session=settings.own_session
                )
            except RduBatchError as error:
                return {"error": error_document(error, str(error))}
            return {"job": asdict(job)}

        end = in_child(make, self._folder / "job", timeout_s=settings.run_timeout_s)
        result = _result_of(end, "copying the first rows of the job")
        if "error" in result:
            raise error_of(result["error"])
        return SmallJob(**result["job"])

    def _record(self, bench: Bench) -> tuple[list[Point], Reference]:
        """The points of a first run and of runs that go on, and what all must come to."""
        self._progress.phase("one undisturbed run, then one killed and gone on with in each place")
        calm = run_trial(bench, "calm", None, None)
        reference = Reference(bench.job.num_rows, published_in(calm.objects))
        _check_calm(calm, reference)
        points = points_of(calm.calls[0])
        for place in places_to_kill(points):
            resumed = run_trial(bench, f"kill-{place.number}", Fault.DRIVER_AFTER, place)
            points += without_known(points_of(resumed.calls[1], killed_at=place), points)
        return points, reference

    def _inline(self, bench: Bench, trials: Sequence[Trial], reference: Reference) -> list[Verdict]:
        works = [
            partial(_try, bench, trial, index, reference) for index, trial in enumerate(trials)
        ]
        verdicts: dict[int, Verdict] = {}
        started_s = said_s = time.monotonic()
        for index, end in self._each(works, self._settings.jobs):
            trial = trials[index]
            verdicts[index] = _verdict(trial.fault, trial.point.number, str(trial.point), end)
            now_s = time.monotonic()
            if now_s - said_s >= PROGRESS_INTERVAL_S or len(verdicts) == len(works):
                said_s = now_s
                num_broken = sum(bool(verdict.broken) for verdict in verdicts.values())
                self._progress.phase(
                    f"{clock(now_s - started_s)} {len(verdicts):,}/{len(works):,} trials, "
                    f"{counted(num_broken, 'violation')}"
                )
        return [verdicts[index] for index in range(len(works))]

    def _through_ray(self, bench: Bench, reference: Reference) -> Iterator[Verdict]:
        job, settings = bench.job, self._settings
        draws = draw_ray_trials(
            settings.ray_sample,
            settings.seed,
            num_shards=job.num_shards,
            rows_per_shard=job.rows_per_shard,
        )
        for draw in choose_draws(draws, settings.only):
            self._progress.phase(f"{draw.label} ({draw.place})")
            work = partial(_try_ray, bench, draw, reference)
            ((_, end),) = self._each([work], 1, beside_s=RAY_TIMEOUT_S)
            yield _verdict(draw.fault, draw.number, draw.place, end)

    def _chosen_trials(self, points: Sequence[Point]) -> list[Trial]:
        trials = list(trials_of(points))
        inline = [text for text in self._settings.only if not is_ray(text)]
        return choose(trials, inline) if inline or not self._settings.only else []

    def _each(
        self, works: Sequence[Callable[[], Any]], at_once: int, *, beside_s: float = 0.0
    ) -> Iterator[tuple[int, ChildEnd]]:
        """Trials in children; each has time for all its runs, to be emptied, and something more."""
        most_runs = MAX_RERUNS + 4
        return each_in_child(
            works,
            self._folder / "works",
            at_once=at_once,
            timeout_s=most_runs * self._settings.run_timeout_s + beside_s,
        )


def _check_only(settings: ChaosSettings) -> None:
    """Check what can be known before anything runs."""
    choose_draws(draw_ray_trials(settings.ray_sample, settings.seed), settings.only)
    for text in settings.only:
        if not is_ray(text):
            fault_in(text)


def _fast_folder() -> str | None:
    """Where temporary folders are fastest; None for the usual place."""
    return MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else None


def _try(bench: Bench, trial: Trial, index: int, reference: Reference) -> dict[str, Any]:
    """In a child: run a trial and judge it."""
    evidence = run_trial(bench, f"trial-{index}", trial.fault, trial.point)
    return _judged(evidence, trial.fault, reference)


def _try_ray(bench: Bench, draw: RayTrial, reference: Reference) -> dict[str, Any]:
    """In a child: run a trial through Ray and judge it."""
    return _judged(run_ray_trial(bench, draw), draw.kin, reference)


def _judged(evidence: Evidence, fault: Fault, reference: Reference) -> dict[str, Any]:
    if not evidence.is_struck:
        hurt = evidence.ends[evidence.num_before]
        return {"broken": {}, "void": f"the run did not come by this call: {hurt}"}
    return {"broken": judge(evidence, fault, reference), "void": ""}


def _verdict(fault: str, number: int, place: str, end: ChildEnd) -> Verdict:
    if end.result is None:
        return Verdict(fault, number, place, void=f"the trial itself failed: {end.stderr[-500:]}")
    broken = {Promise(name): text for name, text in end.result["broken"].items()}
    return Verdict(fault, number, place, broken, end.result["void"])


def _check_calm(calm: Evidence, reference: Reference) -> None:
    """Check the undisturbed run, before anything is compared with it."""
    failed = next((end for end in calm.ends if end.signal or end.exit), None)
    if failed is not None:
        document = {"kind": failed.error.partition(":")[0], "traceback": str(failed)}
        message = failed.error.partition(": ")[2] or str(failed)
        raise error_of({**document, "message": f"the undisturbed run failed: {message}"})
    broken = judge(calm, None, reference)
    if broken:
        texts = "; ".join(f"{promise}: {text}" for promise, text in broken.items())
        raise VerifyFailed(f"the undisturbed run breaks promises already: {texts}")


def _result_of(end: ChildEnd, what: str) -> Any:
    if end.result is None:
        raise RduBatchError(f"internal error while {what}: {end.stderr[-2000:]}")
    return end.result
