"""Audit runs rows again and finds what verify cannot; what it may not judge, it says so."""

import hashlib
import json
import re
import shutil
import subprocess

import pytest

from rdu_batch.dataset.planning import load_plan
from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.runner.audit import choose_rows
from rdu_batch.runner.rerun import spec_of_plan
from rdu_batch.runner.verify import verify_output
from rdu_batch.storage.store import open_store

ALL = ("--sample", "1000", "--seed", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory, job_folder_class, troubled_lines, make_lines):
    """A finished job with several samples a row and dead letters of several reasons."""
    job = job_folder_class(tmp_path_factory.mktemp("audited"))
    lines = [
        *make_lines(10),
        *troubled_lines,
        b'{"id": "k", "text": "[[fake:broken]]"}',
        *make_lines(5),
    ]
    generation = {"max_new_tokens": 20, "temperature": 0.9, "num_samples": 2, "seed": 5}
    done = job.write(lines, generation=generation).run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    return job


@pytest.fixture
def finished(made, tmp_path, job_folder_class):
    """A copy of that output that a test may damage; its inputs stay where they are."""
    job = job_folder_class(tmp_path)
    shutil.copytree(made.output, job.output)
    return job


def audit(job, *arguments):
    done = subprocess.run(
        job.command("audit", job.output, *arguments), capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done, json.loads(done.stdout.strip().splitlines()[-1])


def tree(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def forge(output, name, old, new):
    """Change a published file, and the manifest and _SUCCESS with it, as a faulty run would."""
    before = (output / name).read_bytes()
    assert len(re.findall(old, before)) == 1
    after = re.sub(old, new, before)
    (output / name).write_bytes(after)
    manifest = (output / "manifest.json").read_text()
    entries = [
        f'"bytes": {len(content)}, "sha256": "{hashlib.sha256(content).hexdigest()}"'
        for content in (before, after)
    ]
    assert entries[0] in manifest
    manifest = manifest.replace(*entries)
    success = json.loads((output / "_SUCCESS").read_text())
    success["manifest_sha256"] = hashlib.sha256(manifest.encode()).hexdigest()
    (output / "manifest.json").write_text(manifest)
    (output / "_SUCCESS").write_text(json.dumps(success) + "\n")


def test_every_row_of_a_sound_output_is_equal_and_nothing_is_written(finished):
    """Predictions and dead letters alike; a killed session's dead letter is not asked again."""
    before = tree(finished.output)
    done, report = audit(finished, *ALL)
    assert (done.returncode, report["exit"]) == (0, 0), done.stderr
    assert (report["rows"], report["sampled"], report["equal"]) == (22, 22, 21)
    assert report["not_audited"] == {"session_killed": 1}
    assert "1 not audited (session_killed dead letters)" in done.stderr
    assert tree(finished.output) == before


def test_a_sample_is_of_that_size_and_its_seed_draws_it_again(finished):
    """The seed is in the report, given or not."""
    _, report = audit(finished, "--sample", "3")
    assert report["sampled"] == report["equal"] + sum(report["not_audited"].values()) == 3
    _, again = audit(finished, "--sample", "3", "--seed", str(report["seed"]))
    assert again == report


def test_the_choice_is_uniform_over_all_rows():
    """Each row as often as any other, within five standard deviations; never one twice."""
    times = dict.fromkeys(range(12), 0)
    for seed in range(3000):
        rows = choose_rows(12, 4, seed)
        assert rows == sorted(set(rows))
        for row in rows:
            times[row] += 1
    assert all(
        abs(count - 1000) < 5 * (3000 * (1 / 3) * (2 / 3)) ** 0.5 for count in times.values()
    )
    assert choose_rows(3, 10, 0) == [0, 1, 2]
    assert choose_rows(0, 10, 0) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "field", "row"),
    [
        ("part-00000", rb'(\[0,3\].*"prediction":\[")[a-z]', rb"\1Q", "prediction", [0, 3]),
        (
            "part-00002",
            rb'(\[0,22\].*"finish_reason":\["[a-z]+",")[a-z]+',
            rb"\1stop",
            "finish_reason",
            [0, 22],
        ),
        (
            "part-00000",
            rb'(\[0,1\].*"num_generated_tokens":\[)\d+',
            rb"\g<1>7",
            "num_generated_tokens",
            [0, 1],
        ),
        ("dead-00001", rb'(\[0,14\].*"detail":").*"', rb'\1other"', "detail", [0, 14]),
        ("part-00000", rb'(\[0,2\].*"label":)1', rb"\1 1", "line", [0, 2]),
    ],
)
def test_a_forged_field_that_verify_passes_is_found(finished, name, old, new, field, row):
    """A run that wrote something else and believed it: only running the row again tells."""
    path = next(finished.output.glob(f"{name}-*"))
    forge(finished.output, path.name, old, new)
    problems = verify_output(open_store(str(finished.output))).problems
    assert not [text for text in problems if "sha256" in text or "damaged" in text]
    done, report = audit(finished, *ALL)
    assert (done.returncode, report["equal"]) == (7, 20), done.stderr
    (difference,) = report["differences"]
    assert (difference["row"], difference["field"]) == (row, field)
    assert (difference["file"], difference["published"] != difference["now"]) == (path.name, True)
    assert f"row {row}  {path.name}:{difference['line']}  {field}" in done.stderr


def test_a_row_that_is_missing_or_there_twice_is_found(finished):
    """A prediction that was dropped, and a dead letter that a prediction stands beside."""
    part = next(finished.output.glob("part-00000-*"))
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join([*lines[:2], *lines[3:], lines[4]]))
    done, report = audit(finished, *ALL)
    assert done.returncode == 7
    found = {tuple(one["row"]): one["published"] for one in report["differences"]}
    assert found == {(0, 3): "nowhere", (0, 5): f"{part.name}:4, {part.name}:7"}


def test_a_prediction_in_the_place_of_a_dead_letter_is_found(finished):
    """The row [0, 14] lacks its prompt; here somebody answered it."""
    dead = next(finished.output.glob("dead-00001-*"))
    part = next(finished.output.glob("part-00001-*"))
    lines = [line for line in dead.read_bytes().splitlines(keepends=True) if b"[0,14]" not in line]
    dead.write_bytes(b"".join(lines))
    answer = re.sub(rb"\[\d+,\d+\]", b"[0,14]", part.read_bytes().splitlines()[0], count=1)
    part.write_bytes(answer + b"\n" + part.read_bytes())
    done, report = audit(finished, *ALL)
    assert done.returncode == 7
    (difference,) = report["differences"]
    assert (difference["row"], difference["field"]) == ([0, 14], "outcome")
    assert (difference["published"], difference["now"]) == (
        "prediction",
        "dead letter: missing_field",
    )


def test_another_canary_is_no_damage_and_nothing_is_compared(finished):
    """Exit 8: this machine is not of the kind that made the output."""
    canary = finished.output / "_run/canary.json"
    canary.write_text('{"version": 1, "canary": "sha256:0"}\n')
    done, report = audit(finished, *ALL)
    assert (done.returncode, report["error"]) == (8, "ArtifactError")
    assert "computes other bits" in done.stderr
    assert "no damage" in done.stderr
    canary.unlink()
    done, _ = audit(finished, *ALL)
    assert done.returncode == 3
    assert not canary.exists()


def test_a_session_that_dies_is_not_the_end_of_the_audit(job, make_lines):
    """Its process is killed for a row that takes too long, each time; the others are compared."""
    slow = b'{"id": "s", "text": "[[fake:sleep 1.6]]"}'
    job.write([*make_lines(4), slow, *make_lines(4)])
    assert job.run("--executor", "inline").returncode == 0
    assert audit(job, *ALL)[1]["equal"] == 9
    done, report = audit(job, *ALL, "--row-timeout", "0.3")
    assert (done.returncode, report["equal"], report["differences"]) == (10, 8, []), done.stderr
    (broken,) = report["broken"]
    assert broken["row"] == [0, 5]
    assert "took longer than 0.3 s" in broken["cause"]


def test_a_changed_input_is_exit_4(make_job, make_lines):
    """The rows of the plan are gone: nothing can be said of the output."""
    job = make_job("changed").write(make_lines(5))
    assert job.run("--executor", "inline").returncode == 0
    rows = job.folder / "rows.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b"row 3", b"row 4"))
    done, _ = audit(job)
    assert done.returncode == 4


def test_an_output_that_cannot_be_audited_says_why(finished, tmp_path):
    """Unfinished: exit 7, as of verify. Without its run folder: exit 3."""
    done = subprocess.run(
        finished.command("audit", tmp_path / "none"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 7
    assert "no manifest.json" in done.stderr
    shutil.rmtree(finished.output / "_run")
    done, _ = audit(finished)
    assert done.returncode == 3
    assert "_run/plan.json" in done.stderr


def test_a_job_without_rows_is_audited_without_a_session(job):
    """Nothing to draw; exit 0."""
    job.write([b""]).run("--executor", "inline")
    done, report = audit(job)
    assert (done.returncode, report["sampled"]) == (0, 0)


def test_the_artifact_of_the_plan_must_be_named_and_be_that_one(made, tmp_path):
    """A plan keeps its digest, not where it lies."""
    plan = load_plan(open_store(str(made.output)))
    decides = {**plan.decides, "artifact_digest": "sha256:12", "session": {"kind": "eager"}}
    other = type(plan).from_bytes(plan.to_bytes())
    object.__setattr__(other, "decides", decides)
    how = {"output_url": str(tmp_path), "row_timeout_s": None}
    with pytest.raises(UsageError, match=r"sha256:12.*--artifact"):
        spec_of_plan(other, artifact=None, **how)
    with pytest.raises(ArtifactError):
        spec_of_plan(other, artifact=str(tmp_path / "none"), **how)


def test_the_spec_of_a_plan_is_the_job_that_it_was_made_from(made, tmp_path):
    """All that decides the bytes; limits are the defaults but for the row's time."""
    plan = load_plan(open_store(str(made.output)))
    spec = spec_of_plan(plan, output_url=str(tmp_path), artifact=None, row_timeout_s=9.0)
    assert (spec.generation.num_samples, spec.input.carry) == (2, ("label",))
    assert (spec.limits.row_timeout_s, spec.output.url) == (9.0, str(tmp_path))
