"""A job that a scheduler starts every night: ticks come twice, not at all, or are killed midway."""

import json
import os
import subprocess
import time

import pytest

DAYS = ("2026-11-20", "2026-11-21", "2026-11-22")
#: A beat is far shorter than one in production, so that a tick does not wait long for a dead one.
ENVIRONMENT = {**os.environ, "RDU_BATCH_HEARTBEAT_S": "0.25"}


@pytest.fixture
def nightly(job, make_lines):
    """One job file for every day: what came that day in, its own folder out."""
    for index, day in enumerate(DAYS):
        folder = job.folder / "in" / day
        folder.mkdir(parents=True)
        lines = [
            line.replace(b'"text": "', b'"text": "[[fake:sleep 0.01]]' + day.encode() + b" ")
            for line in make_lines(40 + index)
        ]
        (folder / "rows.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    job.write(
        [],
        input={"urls": [f"{job.folder}/in/{{date}}/*.jsonl"], "id_field": "id"},
        output={"url": f"{job.folder}/out/{{date}}", "rows_per_shard": 7},
    )
    return job


def tick(job, day, *arguments):
    """What the scheduler starts."""
    command = job.command("run", job.path, "--date", day, "--executor", "inline", *arguments)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def end(process):
    """Its exit code and its last line."""
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, json.loads(stdout.splitlines()[-1]), stderr


def wait_for(path, process):
    """Until an object is there, while the process lives."""
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, "it ended before it came so far"
        time.sleep(0.005)


def test_three_nights_with_a_double_a_missed_and_a_killed_tick_are_complete_once(
    nightly, published_bytes
):
    """Each day's output holds that day's rows once, in the bytes of an undisturbed run."""
    first, second, third = DAYS
    out = nightly.folder / "out"

    # The first night's tick comes twice, at the same time.
    twins = [tick(nightly, first), tick(nightly, first)]
    ended = [end(twin) for twin in twins]
    codes = sorted(code for code, _, _ in ended)
    assert codes in ([0, 0], [0, 14]), ended
    states = [told.get("state") for code, told, _ in ended if code == 0]
    assert states.count("complete") == 1
    assert end(tick(nightly, first))[1]["state"] == "already complete"

    # The second night's never comes. The third night's is killed midway ...
    killed = tick(nightly, third)
    wait_for(out / third / "_run" / "commits" / "*", killed)
    killed.kill()
    killed.communicate()
    assert not (out / third / "_SUCCESS").exists()
    assert not (out / second).exists()

    # ... and both are made up for by the same command with their date.
    code, told, stderr = end(tick(nightly, third))
    assert (code, told["state"], told["rows"]) == (0, "complete", 42), stderr
    assert told["rows_resumed"] > 0
    code, told, stderr = end(tick(nightly, second))
    assert (code, told["state"], told["rows"]) == (0, "complete", 41), stderr

    for index, day in enumerate(DAYS):
        verified = nightly.command("verify", out / day)
        assert subprocess.run(verified, capture_output=True, check=False).returncode == 0
        undisturbed = f"{nightly.folder}/alone/{day}"
        code, told, stderr = end(tick(nightly, day, "--set", f"output.url={undisturbed}"))
        assert (code, told["predictions"]) == (0, 40 + index), stderr
        alone = published_bytes(nightly.folder / "alone" / day)
        assert published_bytes(out / day) == alone
        assert len({name for name in alone if name.startswith("part-")}) == 6
