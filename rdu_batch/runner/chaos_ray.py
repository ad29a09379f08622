"""Chaos through Ray: `rdu-batch run` as a real process on a local Ray, hurt at a drawn moment.

Its workers' sessions are processes of their own, so here a worker really dies: its session, the
actor that watches it, or the driver under all of them. What goes on afterwards is the inline
executor, as everywhere in a sweep.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rdu_batch.errors import UsageError
from rdu_batch.runner.chaos_children import in_child
from rdu_batch.runner.chaos_points import Fault
from rdu_batch.runner.chaos_promises import Evidence, RunEnd
from rdu_batch.runner.chaos_trial import INTERNAL_ERROR, Bench, TrialRun, look_at
from rdu_batch.runner.run_layout import (
    CANARY,
    COMMITS_FOLDER,
    SEALED_FOLDER,
    SEGMENTS_FOLDER,
)
from rdu_batch.storage.failpoint import FAULT_VARIABLE, Act, Failpoint, Role, Strike, Victim
from rdu_batch.storage.store import open_store

#: Ray takes seconds to start, and as long again on a busy machine.
RAY_TIMEOUT_S = 240.0
#: For ``--only``: all trials through Ray; each one's name begins with it.
RAY = "Ray"
_KILLS = (Act.KILL_BEFORE, Act.KILL_AFTER)
#: Fault: acts to draw from, whom they hit, and the fault without Ray that is judged like it.
_FAULTS = {
    "Ray: driver killed": (_KILLS, Victim.DRIVER, Fault.DRIVER_AFTER),
    "Ray: actor killed": (_KILLS, Victim.PARENT, Fault.WORKER_AFTER),
    "Ray: session killed": (_KILLS, Victim.SELF, Fault.WORKER_AFTER),
    "Ray: 503": ((Act.FAIL,), Victim.SELF, Fault.UNAVAILABLE),
    "Ray: reply lost": ((Act.LOSE,), Victim.SELF, Fault.REPLY_LOST),
}
_FIRST_ROWS = ("put_file", f"{SEGMENTS_FOLDER}/.*", 2)
#: Calls of a session process: operation, pattern of the name, highest occurrence to draw; 0 for the
#: number of shards.
_MOMENTS = (
    ("create_once", CANARY, 1),
    _FIRST_ROWS,
    ("put_file", f"{SEALED_FOLDER}/.*", 0),
    ("create_once", f"{COMMITS_FOLDER}/.*", 0),
    ("copy", "(part|dead)-.*", 0),
)


@dataclass(frozen=True)
class RayTrial:
    """One drawn fault."""

    fault: str
    #: Which draw; with the seed it tells all the rest.
    number: int
    strike: Strike
    #: The fault of the inline sweep that is judged by the same exit codes.
    kin: Fault

    @property
    def label(self) -> str:
        """What ``--only`` takes."""
        return f"{self.fault} @ {self.number}"

    @property
    def place(self) -> str:
        """For people."""
        strike = self.strike
        return f"{strike.act} {strike.operation} {strike.name}, number {strike.occurrence}"


def is_ray(text: str) -> bool:
    """Whether a text of ``--only`` is about Ray."""
    return text == RAY or text.startswith(f"{RAY}: ")


def choose_draws(draws: Sequence[RayTrial], only: Sequence[str]) -> list[RayTrial]:
    """The draws that ``--only`` names; all of them if it names nothing.

    Raises:
        UsageError: it names one that was not drawn.
    """
    for text in filter(is_ray, only):
        if text != RAY and not any(text in (draw.label, draw.fault) for draw in draws):
            raise UsageError(
                f"--only {text!r}: with this --ray-sample and --seed the trials through Ray are "
                f"{'; '.join(draw.label for draw in draws) or 'none'}"
            )
    if not only or RAY in only:
        return list(draws)
    return [draw for draw in draws if draw.label in only or draw.fault in only]


def draw_ray_trials(
    num_trials: int, seed: int, *, num_shards: int = 1, rows_per_shard: int = 1
) -> list[RayTrial]:
    """Draw trials, each fault in turn; the same ones from the same seed, in the faults' order.

    Args:
        num_trials: how many.
        seed: of the draw.
        num_shards: of the job: so many are sealed, committed and published for certain.
        rows_per_shard: of the job; only a shard of several rows is sure to begin with segments,
            two of them, because a first lease has one row.
    """
    drawn = []
    for index in range(num_trials):
        draw = random.Random(f"{seed} {index}")  # noqa: S311 - a draw of test cases
        fault = list(_FAULTS)[index % len(_FAULTS)]
        acts, victim, kin = _FAULTS[fault]
        operation, name, most = draw.choice(
            [moment for moment in _MOMENTS if rows_per_shard > 1 or moment != _FIRST_ROWS]
        )
        act, occurrence = draw.choice(acts), draw.randint(1, most or num_shards)
        strike = Strike(Role.WORKER, operation, name, occurrence, act, victim)
        drawn.append(RayTrial(fault, index + 1, strike, kin))
    return sorted(drawn, key=lambda trial: list(_FAULTS).index(trial.fault))


def run_ray_trial(bench: Bench, draw: RayTrial) -> Evidence:
    """Run the job through Ray with the fault, then as every trial."""
    trial = TrialRun(bench, f"ray-{draw.number}")
    try:
        _run_through_ray(bench, trial, draw.strike)
        is_struck = trial.is_struck(0)
        trial.finish()
        return trial.evidence(0, is_struck=is_struck)
    finally:
        trial.remove()


def _run_through_ray(bench: Bench, trial: TrialRun, strike: Strike) -> None:
    marks = trial.folder / "run-0"
    marks.mkdir()
    url = bench.output_url(trial.folder.name)
    job_file = marks / "job.yaml"
    document = {**bench.job.document, "output": {**bench.job.document["output"], "url": url}}
    job_file.write_text(json.dumps(document))  # JSON is YAML
    failpoint = Failpoint(str(trial.folder), str(marks), strike)
    command = [sys.executable, "-m", "rdu_batch", "run", str(job_file), "--address", "local"]
    with (marks / "stdout").open("wb") as stdout, (marks / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, FAULT_VARIABLE: failpoint.to_json()},
        )
        try:
            process.wait(RAY_TIMEOUT_S)
            end = _end_of(process.returncode, marks / "stdout")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            error = f"the run did not end within {RAY_TIMEOUT_S:g} s"
            end = RunEnd(0, INTERNAL_ERROR, error=error)
    look = in_child(lambda: look_at(open_store(url)), marks / "look", timeout_s=bench.run_timeout_s)
    trial.note(end, look.result)


def _end_of(returncode: int, stdout: Path) -> RunEnd:
    """How a run ended; its JSON line must say the same as its exit code."""
    if returncode < 0:
        return RunEnd(-returncode, 0)
    lines = stdout.read_text(errors="replace").strip().splitlines()
    try:
        said = json.loads(lines[-1])
        code = said["exit"]
    except (IndexError, ValueError, KeyError, TypeError):
        error = f"exit {returncode} without a JSON line on standard output"
        return RunEnd(0, INTERNAL_ERROR, error=error)
    if code != returncode:
        error = f"exit {returncode}, its JSON line says {code}"
        return RunEnd(0, INTERNAL_ERROR, error=error)
    error = f"{said['error']}: {said['message']}" if "error" in said else ""
    return RunEnd(0, returncode, said.get("state", ""), error)
