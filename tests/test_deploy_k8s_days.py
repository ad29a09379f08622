"""Which day a nightly manifest runs: by the shell that is in it."""

import datetime as dt
import os
import subprocess
import zoneinfo

import pytest

from tests.k8s_manifests import FOLDER, IMAGE, documents, render


def day_of(manifest, tmp_path, **variables):
    """The --date of what a nightly manifest runs, by its own shell; ``rdu-batch`` is a stand-in."""
    if manifest["kind"] == "CronJob":
        (container,) = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        command = container["command"]
    else:
        # As Ray runs an entrypoint.
        command = ["/bin/sh", "-c", manifest["spec"]["jobTemplate"]["entrypoint"]]
    program = tmp_path / "rdu-batch"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    words = told.splitlines()
    return words[words.index("--date") + 1]


def tick_of(text):
    """Minutes since 1970 of a time with its zone, as names of Jobs end with."""
    return int(dt.datetime.fromisoformat(text).timestamp()) // 60


#: Kind, and how the variable that tells the tick spells it: a Job's name, a RayCluster's.
NIGHTLY = [
    ("cronjob", "JOB_NAME", "reviews-nightly-{}"),
    ("raycronjob", "RAY_CLUSTER_NAME", "reviews-nightly-{}-x7k2q"),
]


@pytest.mark.parametrize(("kind", "variable", "name"), NIGHTLY)
@pytest.mark.parametrize(
    ("zone", "tick", "day"),
    [
        ("Etc/UTC", "2026-11-23T03:17+00:00", "2026-11-22"),
        # In UTC it is still the 22nd.
        ("Asia/Tokyo", "2026-11-23T03:17+09:00", "2026-11-22"),
        ("America/Los_Angeles", "2026-11-23T21:17-08:00", "2026-11-22"),
        # The day before has 23 hours.
        ("Europe/Berlin", "2026-03-30T00:17+02:00", "2026-03-29"),
    ],
)
def test_every_night_runs_the_day_before_its_tick(kind, variable, name, zone, tick, day, tmp_path):
    """In the schedule's time zone, however late the pod comes: these ticks are not of today."""
    done = render("nightly.yaml", *IMAGE, "--kind", kind, "--time-zone", zone)
    assert done.returncode == 0, done.stderr
    _, manifest = documents(done.stdout)
    assert day_of(manifest, tmp_path, **{variable: name.format(tick_of(tick))}) == day


@pytest.mark.parametrize(("kind", "variable", "_name"), NIGHTLY)
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Etc/UTC", "America/Los_Angeles"])
@pytest.mark.parametrize("name", [None, "by-hand", "night-20261122", "night-2026"])
def test_what_is_started_by_hand_runs_the_day_before_now(
    kind, variable, _name, zone, name, tmp_path
):
    """Its name holds no tick, though it may hold a date."""
    done = render("nightly.yaml", *IMAGE, "--kind", kind, "--time-zone", zone)
    _, manifest = documents(done.stdout)
    told = {} if name is None else {variable: name}

    def yesterday():
        now = dt.datetime.now(zoneinfo.ZoneInfo(zone))
        return (now.date() - dt.timedelta(days=1)).isoformat()

    # Twice, for midnight may pass.
    days = {yesterday(), day_of(manifest, tmp_path, **told), yesterday()}
    assert len(days) == 1 or day_of(manifest, tmp_path, **told) == yesterday()


def test_an_image_without_time_zones_is_said(tmp_path):
    """GNU date would take UTC without a word."""
    done = render("nightly.yaml", *IMAGE, "--kind", "cronjob", "--time-zone", "Asia/Tokyo")
    _, manifest = documents(done.stdout)
    (container,) = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    shell = container["command"][2].replace("/usr/share/zoneinfo", str(tmp_path))
    found = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "install tzdata" in found.stderr


def test_the_pod_of_a_tick_is_told_its_name():
    """By the label that Kubernetes gives it."""
    (_, cron) = documents((FOLDER / "cronjob.yaml").read_text())
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    field = {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}
    assert {"name": "JOB_NAME", "valueFrom": {"fieldRef": field}} in container["env"]
