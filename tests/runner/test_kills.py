"""SIGKILL of the driver, of a worker's actor and of its session, in every phase of a run.

Each case arms one crash point (see crash_points/sitecustomize.py), asserts that it was met, lets
the job end (by itself when a worker died, by running the same command when the driver died), and
compares every published byte with an undisturbed run.
"""

import json
import random
import signal
from pathlib import Path

import pytest

CRASH_POINTS = Path(__file__).parent / "crash_points"

#: Phase: (operation, pattern of the object's name, highest occurrence to draw, victims).
PHASES = {
    "planning the index": ("put_whole", r"_run/index/", 1, ["driver"]),
    "planning the plan": ("create_once", r"_run/plan\.json", 1, ["driver"]),
    "opening": ("create_once", r"_run/canary", 1, ["driver", "actor", "session"]),
    "leasing": ("put_file", r"_run/segments/", 4, ["driver", "actor", "session"]),
    "sealing": ("put_file", r"_run/sealed/", 4, ["driver", "actor", "session"]),
    "committing": ("create_once", r"_run/commits/", 3, ["driver", "actor", "session"]),
    "publishing": ("copy", r"(part|dead)-", 4, ["driver", "actor", "session"]),
    "the manifest": ("put_file", r"manifest\.json", 1, ["driver"]),
    "the end": ("put_whole", r"_SUCCESS", 1, ["driver"]),
}
#: Phases in which the driver has no workers yet, or none any more: no Ray is needed to kill it.
ALONE = {"planning the index", "planning the plan", "the manifest", "the end"}
CASES = [(phase, victim) for phase, (*_, victims) in PHASES.items() for victim in victims]
#: The moment within a phase is drawn; a seed makes a failing draw repeatable.
SEEDS = range(1, 6)
#: Run by ``make test`` too. Of the other phases, its chaos sweep kills the driver at every call
#: that there is, and its kill schedule kills drivers and sessions of a run on Ray.
IN_SHORT = {
    *((phase, "driver") for phase in ALONE),
    ("opening", "actor"),
}
DRAWS = [
    pytest.param(
        *case, seed, marks=[] if seed == 1 and case in IN_SHORT else [pytest.mark.all_only]
    )
    for seed in SEEDS
    for case in CASES
]


@pytest.fixture(scope="module")
def calm(tmp_path_factory, make_lines, troubled_lines, job_folder_class):
    """The job, run once with nothing happening to it."""
    job = job_folder_class(tmp_path_factory.mktemp("calm"))
    job.write([*make_lines(30), *troubled_lines, *make_lines(10)])
    done = job.run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    return job


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("phase", "victim", "seed"), DRAWS)
def test_a_kill_in_any_phase_changes_no_published_byte(
    phase, victim, seed, tmp_path, calm, published_bytes
):
    """Whoever dies, whenever: the job ends with the bytes of an undisturbed run."""
    operation, name, most, _ = PHASES[phase]
    draw = random.Random(f"{seed} {phase} {victim}")
    marks = tmp_path / "marks"
    marks.mkdir()
    point = {
        "phase": phase,
        "victim": victim,
        "operation": operation,
        "name": name,
        "moment": draw.choice(["before", "after"]),
        "occurrence": draw.randint(1, most),
        "folder": str(marks),
    }
    output = tmp_path / "out"
    to_output = ["--set", f"output.url={output}"]
    env = {"CRASH_POINT": json.dumps(point), "PYTHONPATH": str(CRASH_POINTS)}
    on_ray = ["--address", "local", "--set", "workers.count=2"]
    how = ["--executor", "inline"] if phase in ALONE else on_ray
    done = calm.run(*to_output, *how, env=env)
    assert (marks / "crashed").read_text() == f"{phase} {victim}", done.stderr
    if victim == "driver":
        assert done.returncode == -signal.SIGKILL
        done = calm.run(*to_output, "--executor", "inline")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, "what Ray tells is for standard error"
    assert published_bytes(output) == published_bytes(calm.output)
