"""``rdu-batch chaos``: what goes wrong before a sweep, and what it leaves behind."""

import json
import subprocess
import sys

import pytest
import yaml


@pytest.fixture
def spec(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n')
    return {
        "version": 1,
        "name": "chaos",
        "input": {"urls": [str(rows)]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "output": {"url": str(tmp_path / "out")},
    }


@pytest.fixture
def chaos(tmp_path):
    def chaos(spec, *arguments):
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(spec))
        command = [sys.executable, "-m", "rdu_batch", "chaos", str(path), *arguments]
        done = subprocess.run(
            [*command, "--ray-sample", "0"], capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        return done, json.loads(done.stdout.strip().splitlines()[-1])

    return chaos


def test_help_says_what_is_done_and_that_the_output_is_safe():
    """In words."""
    command = [sys.executable, "-m", "rdu_batch", "chaos", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "own output is never touched" in " ".join(done.stdout.split())


def test_an_unknown_trial_is_exit_2_and_names_what_there_is(chaos, spec):
    """The faults, or where that one can happen."""
    done, document = chaos(spec, "--only", "flood @ 3")
    assert (done.returncode, document["error"]) == (2, "UsageError")
    assert "driver killed before" in document["message"]
    done, document = chaos(spec, "--only", "torn write @ 1")
    assert done.returncode == 2
    assert "can happen at" in document["message"]
    done, document = chaos(spec, "--only", "Ray: 503 @ 1")
    assert (done.returncode, "--ray-sample" in document["message"]) == (2, True)


def test_a_wrong_job_file_is_exit_3(chaos, spec):
    """As every verb says it."""
    spec["output"]["rows_per_shard"] = "none"
    done, document = chaos(spec)
    assert (done.returncode, document["error"]) == (3, "SpecError")
    assert "job.yaml" in done.stderr


def test_inputs_that_are_missing_or_empty_are_exit_4(chaos, spec, tmp_path):
    """There is nothing to try anything with."""
    (tmp_path / "rows.jsonl").write_text("\n \n")
    done, document = chaos(spec)
    assert (done.returncode, document["error"]) == (4, "InputError")
    assert "no row" in document["message"]
    spec["input"]["urls"] = [str(tmp_path / "nowhere.jsonl")]
    assert chaos(spec)[0].returncode == 4


def test_a_scratch_that_cannot_be_written_is_exit_6(chaos, spec, tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("in the way")
    done, document = chaos(spec, "--scratch", str(tmp_path / "file" / "scratch"))
    assert (done.returncode, document["error"]) == (6, "StoreError")
    assert "the undisturbed run failed" in document["message"]
    assert str(tmp_path / "file") in document["message"]


def test_an_own_session_without_its_artifact_is_exit_8(chaos, spec, tmp_path):
    """The fake one needs none, whatever the job's kind."""
    spec["session"] = {"kind": "inductor", "artifact": str(tmp_path / "none")}
    done, document = chaos(spec, "--own-session")
    assert (done.returncode, document["error"]) == (8, "ArtifactError")
    assert chaos(spec, "--only", "503 @ 1")[0].returncode == 0


def test_a_job_of_one_row_and_any_prompt_can_be_tried(chaos, spec):
    """Chat templates, sampling, long prompts: none of it needs the model."""
    spec["prompt"] = {"template": "{{ row.text * 500 }}", "chat_template": True}
    spec["generation"] = {"temperature": 1.0, "num_samples": 2, "max_new_tokens": 500}
    done, document = chaos(spec, "--only", "empty listing")
    assert (done.returncode, document["rows"], document["violations"]) == (0, 3, []), done.stderr


def test_nothing_is_left_in_the_scratch_and_the_output_is_not_touched(chaos, spec, tmp_path):
    """What was in the folder before is still there; one table, one JSON line."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "mine").write_text("mine")
    done, document = chaos(spec, "--scratch", str(scratch), "--only", "reply lost, asked again")
    assert (done.returncode, document["exit"]) == (0, 0), done.stderr
    assert len(done.stdout.strip().splitlines()) == 1
    assert "every promise held in every trial" in done.stderr
    assert [path.name for path in scratch.rglob("*")] == ["mine"]
    assert not (tmp_path / "out").exists()
