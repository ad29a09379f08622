"""Fifty random schedules of SIGKILL and SIGSTOP/SIGCONT against whole jobs on one Ray.

Each draws workers, sampling, store and session, and strikes drivers, actors and session processes
at moments of the job's progress. Whatever they meet, the job ends with the bytes of an undisturbed
run. A failing schedule is repeated by its number: see ``kill_schedules/schedule.py``.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.runner.kill_schedules.schedule import (
    BLOWS,
    COMBINATIONS,
    SCHEDULES,
    WAKINGS,
    Kind,
    Schedule,
    draw_schedule,
)

# Fixtures of other rooms: the S3 server, and a tiny model with its tokenizer.
from tests.sessions.conftest import (  # noqa: F401
    compile_on_stand_in,
    save_tokenizer,
    stand_in_environment,
    tiny_artifact,
    tiny_checkpoint,
)
from tests.storage.conftest import BUCKET, seaweed_port  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.runner.kill_schedules.stage import Stage

#: In ``make test``: kills on a local output; the others in ``make test-all``. Pauses have a test of
#: their own there (``test_pauses.py``).
SHORT = {16}
#: A schedule whose job ends before its last strike falls is run again with earlier moments.
MOST_TRIES = 3


def strikes_of(schedules: list[Schedule]) -> Counter[tuple[str, str]]:
    return Counter((one.victim, one.blow) for schedule in schedules for one in schedule.strikes)


def test_every_combination_comes_up_at_least_four_times() -> None:
    """Workers, sampling and store; and a number always gives the same schedule."""
    assert len(SCHEDULES) == 50
    assert tuple(map(draw_schedule, range(50))) == SCHEDULES
    met = Counter((one.workers, one.is_sampled, one.store) for one in SCHEDULES)
    assert set(met) == set(COMBINATIONS)
    assert len(COMBINATIONS) == 12
    assert min(met.values()) >= 4


def test_most_schedules_have_the_fake_session_and_at_least_five_a_real_one() -> None:
    """The real ones are spread over both stores, greedy and sampled, and any number of workers."""
    real = [one for one in SCHEDULES if one.session != "fake"]
    assert 5 <= len(real) < 25
    assert {one.workers for one in real} == {1, 2, 4}
    assert len({(one.is_sampled, one.store) for one in real}) == 4


def test_every_victim_meets_every_signal_often_on_both_stores() -> None:
    """At least eight times over the whole set, and three times on each store."""
    met = strikes_of(list(SCHEDULES))
    assert set(met) == set(BLOWS)
    assert min(met.values()) >= 8, met
    for store in ("local", "s3"):
        met = strikes_of([one for one in SCHEDULES if one.store == store])
        assert set(met) == set(BLOWS)
        assert min(met.values()) >= 3, met
    real = strikes_of([one for one in SCHEDULES if one.session != "fake"])
    assert {victim for victim, _ in real} == {"driver", "actor", "session"}


def test_stopped_drivers_wake_up_in_every_way() -> None:
    """While another watches, after it took over, and after it finished: three times each."""
    met = Counter(
        one.waking
        for schedule in SCHEDULES
        for one in schedule.strikes
        if (one.victim, one.blow) == ("driver", "STOP")
    )
    assert set(met) == set(WAKINGS)
    assert min(met.values()) >= 3, met


def test_the_short_form_kills_several_kinds_of_victims_on_a_local_output() -> None:
    """With the fake session."""
    (local,) = (SCHEDULES[number] for number in SHORT)
    assert (local.store, local.session) == ("local", "fake")
    assert {one.blow for one in local.strikes} == {"KILL"}
    assert len({one.victim for one in local.strikes}) >= 2


@pytest.fixture(scope="module")
def stage(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    troubled_lines: list[bytes],
) -> Iterator[Stage]:
    """One Ray and one S3 server for all trials."""
    from tests.runner.kill_schedules.stage import Stage, environment_of, run_ray, s3_variables

    s3_port = request.getfixturevalue("seaweed_port")
    import s3fs

    folder = tmp_path_factory.mktemp("stage")

    def artifact_of(kind: str) -> str:
        make: Callable[[str, str], object] = request.getfixturevalue("tiny_artifact")
        return str(make(kind, "llama").artifact.url)  # type: ignore[attr-defined]

    environment = environment_of(s3_port, tmp_path_factory.mktemp("scratch"))
    with pytest.MonkeyPatch.context() as patch, run_ray(environment) as (head, address):
        for name, value in s3_variables(s3_port).items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        made = Stage(
            folder=folder,
            bucket=f"s3://{BUCKET}/kills",
            environment=environment,
            head=head,
            address=address,
            troubled_lines=troubled_lines,
            artifact_of=artifact_of,
        )
        try:
            yield made
        finally:
            made.close()
            s3fs.S3FileSystem.clear_instance_cache()


def as_parameter(schedule: Schedule) -> object:
    marks = [] if schedule.number in SHORT else [pytest.mark.all_only]
    marks += [pytest.mark.s3] if schedule.store == "s3" else []
    return pytest.param(schedule, id=schedule.name, marks=marks)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("kill_schedules")
@pytest.mark.parametrize("schedule", [as_parameter(schedule) for schedule in SCHEDULES])
def test_a_kill_schedule_changes_no_published_byte(
    schedule: Schedule,
    stage: Stage,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Every strike falls; the job completes, verifies, and has the bytes of an undisturbed run."""
    from tests.runner.kill_schedules.stage import published
    from tests.runner.kill_schedules.trial import Trial

    for number in range(MOST_TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        trial = Trial(stage, schedule.earlier(number), folder)
        started_s = time.monotonic()
        trial.run()
        record_property("wall_s", round(time.monotonic() - started_s, 1))
        record_property("hits", "; ".join(trial.hits))
        verified = subprocess.run(
            stage.command("verify", trial.output),
            capture_output=True,
            text=True,
            check=False,
            env=stage.environment,
        )
        assert verified.returncode == 0, (verified.stderr, trial.account())
        calm = stage.published_by_calm_run(trial.job)
        assert published(trial.output) == calm, trial.account()
        if len(trial.hits) == len(schedule.strikes):
            break
    else:
        pytest.fail("each time the job ended before the last strike fell")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.xdist_group("kill_schedules")
@pytest.mark.parametrize(
    ("session", "is_sampled"),
    [
        ("fake", False),
        pytest.param("fake", True, marks=pytest.mark.all_only),
        pytest.param("eager", False, marks=pytest.mark.all_only),
        pytest.param("eager", True, marks=pytest.mark.all_only),
    ],
)
def test_undisturbed_runs_publish_the_same_rows_on_both_stores(
    session: Kind, is_sampled: bool, stage: Stage
) -> None:
    """What the trials are compared with: parts and dead letters do not tell where they lie."""
    trees = [
        stage.published_by_calm_run(stage.job_of(session, is_sampled, store))
        for store in ("local", "s3")
    ]
    on_local, on_s3 = (
        {name: sha256 for name, sha256 in tree.items() if name.startswith(("part-", "dead-"))}
        for tree in trees
    )
    assert on_local == on_s3
    assert {"manifest.json", "_SUCCESS"} == set(trees[0]) - set(on_local)
    assert any(name.startswith("dead-") for name in on_local)
