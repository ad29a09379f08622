"""What ``plan`` shows and predicts, and what ``run`` makes of it, on the fake session."""

from __future__ import annotations

import gzip
import json
import subprocess
from dataclasses import replace

import pytest

from rdu_batch.job.speed import Interval, Speed
from rdu_batch.sessions.artifact import Artifact, Target

#: Each row costs 0.05 to 0.1 s of prefill; of decode, next to nothing.
SPEED = Speed(Interval(100, 200), Interval(1e8, 1e9), Interval(0, 0), 1, "A Processor")
LINES = [json.dumps({"id": n, "text": f"{n:02d}" + "x" * 8}).encode() for n in range(60)]


@pytest.fixture
def plan(job):
    """Types ``plan``; its JSON and what it says to people."""

    def call(*options):
        done = subprocess.run(
            job.command("plan", job.path, *options), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return call


@pytest.fixture
def fake_artifact(tmp_path):
    """An artifact of kind fake, with what ``compile`` would have measured beside it."""
    artifact = Artifact(
        kind="fake", dtype="fp32", max_seq_length=64, prefill_chunk=1, cache_length=0,
        num_layers=0, num_kv_heads=0, head_size=0, vocab_size=257, threads=None, without=(),
        weights="plain", model_family="fake", has_weights=True, model_digest="sha256:0",
        settings_digest="sha256:0", target=Target(), files={},
    )  # fmt: skip
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "artifact.json").write_bytes(artifact.to_bytes())
    (folder / "measured.json").write_bytes(SPEED.to_bytes())
    return folder


def test_rendered_rows_are_spread_and_the_same_each_time(job, plan):
    """In the JSON and for people; the seed is the job, so another job has others."""
    job.write(LINES, prompt={"template": "Say:\n\x1b[1m{{ row.text }}"})
    found, said = plan("--render", "--sample", "4")
    assert plan("--render", "--sample", "4")[0] == found
    assert [(row["line"] - 1) // 15 for row in found["sample"]] == [0, 1, 2, 3]
    for row in found["sample"]:
        assert row["prompt"] == f"Say:\n\x1b[1m{row['line'] - 1:02d}xxxxxxxx"
        assert row["num_prompt_tokens"] == len(row["prompt"])
        assert f"rows.jsonl:{row['line']}  19 tokens\n  | Say:\n  | \\u001b[1m" in said
    assert "\x1b" not in said


def test_rows_that_would_be_dead_letters_say_why(job, plan, troubled_lines):
    """The reasons and details of the run's own dead letters."""
    job.write(troubled_lines)
    found, said = plan("--render", "--sample", "99")
    foretold = {
        row["line"]: (row["dead_reason"], row["dead_detail"])
        for row in found["sample"]
        if row["dead_reason"] is not None
    }
    assert job.run("--executor", "inline").returncode == 0
    letters = [json.loads(line) for path in job.output.glob("dead-*") for line in path.open()]
    assert foretold == {one["row"][1]: (one["reason"], one["detail"]) for one in letters}
    assert len(foretold) == found["prediction"]["sampled_dead_rows"] == 4
    assert "dead letter: not_json" in said


def test_a_misnamed_field_is_told_before_a_run(job, plan):
    """With the fields that there are, and what a run would come to."""
    job.write(LINES, prompt={"template": "{{ row.body }}"})
    found, said = plan()
    reason = found["prediction"]["sampled_dead_reasons"]["missing_field"]
    assert (reason["rows"], found["prediction"]["mostly_dead"]) == (60, True)
    assert 'the row has no field "body"; it has "id", "text"' in reason["example"]["detail"]
    assert "    missing_field 60, such as rows.jsonl:1: line 1 of the template cannot" in said
    assert "most rows would be dead letters: a run ends with exit 5" in said
    job.write(LINES * 17, prompt={"field": "body"})
    assert 'the row has no field "body"; wanted a string there; it has "id", "text"' in plan()[1]
    assert "most rows would be dead letters: a run stops early (exit 10)" in plan()[1]


def test_chats_are_shown_message_by_message(job, plan):
    """With the system message that the job adds."""
    chat = [{"role": "user", "content": "hi", "more": 1}]
    lines = [json.dumps({"chat": chat}).encode()]
    job.write(lines, prompt={"messages_field": "chat", "system": "be brief"})
    found, said = plan("--render")
    wanted = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert (found["sample"][0]["messages"], found["sample"][0]["prompt"]) == (wanted, None)
    assert "  system:\n  | be brief\n  user:\n  | hi\n" in said


def test_a_large_compressed_file_is_sampled_near_its_start_and_hides_no_other(job, plan, tmp_path):
    """No run has copied it yet; what it will copy, and what the sample leaves out, is said."""
    row = json.dumps({"text": "y" * 20, "m": "m" * 958}).encode() + b"\n"  # 1,000 bytes
    (tmp_path / "large.jsonl.gz").write_bytes(gzip.compress(row * 68_000, 1))
    job.write(LINES)
    urls = [str(tmp_path / "large.jsonl.gz"), f"{job.folder}/rows.jsonl"]
    found, said = plan("--render", "--sample", "5", "--set", f"input.urls={json.dumps(urls)}")
    paths = [one["path"] for one in found["sample"]]
    assert set(paths) == {"large.jsonl.gz", "rows.jsonl"}
    assert all(one["line"] <= 1048 for one in found["sample"] if one["path"] == "large.jsonl.gz")
    prediction = found["prediction"]
    low, high = prediction["prompt_tokens"]
    assert low <= 68_000 * 20 + 600 <= high
    assert "1 large compressed or .json file: sampled near the start (1,048 of 68,000 rows)" in said
    assert found["not_sampled"] in said
    assert "copies this once to _run/recut/ in the output" in said


def test_where_no_row_can_be_sampled_that_is_said(job, monkeypatch):
    """One row of more than the first MiB, in a file that must be unpacked."""
    from rdu_batch.dataset.planning import RecutCost, make_plan
    from rdu_batch.dataset.sampling_rows import LargeFile, SampleFrame
    from rdu_batch.job.loading import load_spec
    from rdu_batch.runner import outlook

    spec = load_spec(job.write(LINES).path.read_text(), source="job")
    planned = replace(make_plan(spec, "sha256:0"), recut=RecutCost(2, 10, 100))
    frame = SampleFrame((), (LargeFile(0, 60, 0),))
    monkeypatch.setattr(outlook, "frame_of", lambda *_: frame)
    found = outlook.look_ahead(spec, planned, planned.plan, num_shown=3, num_sampled=3)
    assert found.rows == ()
    assert found.to_json()["prediction"]["prompt_tokens"] is None
    assert found.to_lines()[0].startswith("sampling  no rows are sampled: 1 large")


def test_without_a_speed_tokens_are_predicted_and_no_times(job, plan):
    """All rows are counted here, so the prompt tokens are exact."""
    job.write(LINES, generation={"max_new_tokens": 7, "min_new_tokens": 2})
    found, said = plan()
    prediction = found["prediction"]
    assert prediction["prompt_tokens"] == [600, 600]
    assert prediction["generated_tokens"] == [120, 420]
    assert (prediction["speed"], prediction["runs"]) == (None, [])
    assert "no times: a session of kind fake without an artifact has no speed" in said
    assert "sample" not in found
    assert "prediction" not in plan("--predict-from", "0")[0]


def test_with_a_speed_times_are_predicted_and_the_run_says_how_far_off_they_were(
    job, plan, fake_artifact
):
    """The run's own prediction is for its workers; its summary compares."""
    session = {"kind": "fake", "artifact": str(fake_artifact)}
    job.write(LINES, session=session, workers={"count": 4})
    found, said = plan()
    assert [run["workers"] for run in found["prediction"]["runs"]] == [1, 2, 4]
    one = found["prediction"]["runs"][0]
    assert one["wall_s"] == [pytest.approx(1 + 600 / 200), pytest.approx(20 + 600 / 100)]
    assert "as fast as measured by compile: A Processor, 1 thread a session" in said
    done = job.run("--executor", "inline")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["predicted_wall_s"] == one["wall_s"]
    assert "predicted  4-26 s, took " in done.stderr
    (result,) = (job.output / "_run" / "results").glob("*.json")
    assert json.loads(result.read_text())["predicted_wall_s"] == one["wall_s"]
    # A complete job has nothing left to predict, in either verb.
    assert "prediction" not in plan()[0]
    assert "predicted_wall_s" not in json.loads(job.run().stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("session", "said"),
    [
        ({"threads": 2}, "with session.threads 2, but with 1"),
        ({"kind": "eager"}, "need a tokenizer.json"),
    ],
)
def test_what_is_not_known_is_said_not_guessed(job, plan, fake_artifact, session, said):
    """A speed of other threads; tokens of an artifact without a tokenizer."""
    job.write(LINES, session={"kind": "fake", "artifact": str(fake_artifact), **session})
    assert said in plan()[0]["prediction"]["note"]
