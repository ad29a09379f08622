"""A half-finished output that another version of this program left is refused, not misread."""

import json

import pytest

#: What a resume reads, and what of a run that was stopped after two shards of three is there: each
#: with the version of its format that this program writes.
VERSIONED = {"_run/plan.json": 4, "_run/commits/00000.json": 2, "_run/canary.json": 1}


@pytest.fixture
def half_finished(job, make_lines):
    """The output of a driver that was killed after it had committed two shards of three."""
    job.write(make_lines(15), rows_per_shard=5)
    assert job.run("--executor", "inline").returncode == 0
    for name in (
        *("_SUCCESS", "manifest.json", "part-00002-of-00003.jsonl"),
        *("_run/commits/00002.json", "_run/results/000001.json"),
    ):
        (job.output / name).unlink()
    return job


def tree(folder):
    """Every file with its bytes, but what a driver says of itself."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"drivers", "results"} & set(path.parts)
    }


@pytest.mark.parametrize("name", VERSIONED)
def test_an_object_of_another_format_version_is_refused_and_left_alone(half_finished, name):
    """Exit 3: what has which version, what this program reads, what to do."""
    path = half_finished.output / name
    document = json.loads(path.read_bytes())
    assert document["version"] == VERSIONED[name]
    path.write_text(json.dumps({**document, "version": 9, "new": {"things": []}}) + "\n")
    before = tree(half_finished.output)
    done = half_finished.run("--executor", "inline")
    assert done.returncode == 3, done.stderr
    assert "version 9" in done.stderr
    assert "choose another output" in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(half_finished.output) == before


@pytest.mark.parametrize("name", VERSIONED)
def test_the_same_object_of_this_version_is_read(half_finished, name):
    """The other side of the test above: nothing but the version was what it refused."""
    path = half_finished.output / name
    path.write_text(json.dumps(json.loads(path.read_bytes())) + "\n")
    done = half_finished.run("--executor", "inline")
    assert done.returncode == 0, done.stderr


def test_a_damaged_canary_is_said_as_such(half_finished):
    """Not as another machine, and not with a traceback."""
    (half_finished.output / "_run/canary.json").write_text('{"version": 1}')
    done = half_finished.run("--executor", "inline")
    assert done.returncode == 3, done.stderr
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr
