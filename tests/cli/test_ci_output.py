"""``run`` inside a runner of a CI system, as the system sees it."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
import yaml

from rdu_batch.cli.ci_options import CiOutput


@pytest.fixture
def run_in_ci(tmp_path):
    """Run a job over rows of which one is dead, with more words and variables."""
    rows = ['{"text": "fine"}', '{"text": 17}', '{"text": "fine, too"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    job = {
        "version": 1,
        "name": "nightly",
        "input": {"urls": [str(tmp_path / "rows.jsonl")]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "generation": {"max_new_tokens": 4},
        "output": {"url": str(tmp_path / "out")},
        "limits": {"max_dead_rows": 1},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    outside = {key: one for key, one in os.environ.items() if not key.startswith("GITHUB_")}

    def run(*words, **variables):
        return subprocess.run(
            [
                *(sys.executable, "-m", "rdu_batch", "run", tmp_path / "job.yaml"),
                *("--executor", "inline", *map(str, words)),
            ],
            capture_output=True,
            text=True,
            check=False,
            env=outside | {key: str(one) for key, one in variables.items()},
        )

    return run


def commands_of(done):
    return [line for line in done.stderr.splitlines() if line.startswith("::")]


def test_a_run_in_a_runner_of_github_annotates_and_adds_to_the_summary(run_in_ci, tmp_path):
    """By itself; what a step before wrote is kept; standard output still ends with the JSON."""
    summary = tmp_path / "step.md"
    summary.write_text("earlier\n")
    done = run_in_ci(GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=summary)
    assert done.returncode == 0
    (command,) = commands_of(done)
    assert command.startswith("::warning title=rdu-batch nightly::")
    assert "1 of 3 rows are dead letters" in command
    assert summary.read_text().startswith("earlier\n## rdu-batch: nightly")
    assert json.loads(done.stdout.splitlines()[-1])["dead"] == 1


def test_outside_of_it_nothing_is_said_that_was_not_asked_for(run_in_ci, tmp_path):
    """Not even where a variable of a step is left over; files are written where asked."""
    summary, junit = tmp_path / "s.md", tmp_path / "j.xml"
    step = tmp_path / "step.md"
    done = run_in_ci(
        "--summary-file", summary, "--junit-xml", junit, "--ci", "none", GITHUB_STEP_SUMMARY=step
    )
    assert done.returncode == 0
    assert commands_of(done) == []
    assert not step.exists()
    assert "| rows | 3 |" in summary.read_text()
    assert ET.parse(junit).getroot().get("failures") == "0"  # noqa: S314 - our own


@pytest.mark.parametrize(
    ("fail_on", "limit", "code"),
    [("limit", 1, 0), ("any-dead", 1, 5), ("limit", 0, 5), ("never", 0, 0)],
)
def test_dead_letters_fail_a_run_as_asked(run_in_ci, tmp_path, fail_on, limit, code):
    """The exit code, the JSON line and the report agree; the output is complete all the same."""
    junit = tmp_path / "j.xml"
    done = run_in_ci(
        *("--fail-on", fail_on, "--set", f"limits.max_dead_rows={limit}", "--junit-xml", junit)
    )
    assert done.returncode == json.loads(done.stdout.splitlines()[-1])["exit"] == code
    assert ET.parse(junit).getroot().get("failures") == str(int(code == 5))  # noqa: S314
    assert (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (["--set", "input.urls=[/nowhere/x.jsonl]"], "InputError", 4),
        (["--set", "generation.temperature=warm"], "SpecError", 3),
    ],
    ids=["no input", "a wrong job file"],
)
def test_an_error_is_told_in_every_place(run_in_ci, tmp_path, words, kind, code):
    """With the exit code of its class, which nothing changes."""
    summary, junit = tmp_path / "s.md", tmp_path / "j.xml"
    done = run_in_ci(
        *words, "--summary-file", summary, "--junit-xml", junit, "--fail-on", "never",
        "--ci", "github",
    )  # fmt: skip
    assert done.returncode == code
    assert [one[:7] for one in commands_of(done)] == ["::error"]
    assert f"exit {code}" in summary.read_text()
    (error,) = ET.parse(junit).getroot().iter("error")  # noqa: S314 - our own
    assert error.get("type") == f"{kind} (exit {code})"


def test_a_file_that_cannot_be_written_is_said_and_changes_no_exit_code(run_in_ci, tmp_path):
    """The run is what counts; a folder that is missing is made."""
    below_a_file = tmp_path / "rows.jsonl" / "all.md"
    done = run_in_ci("--summary-file", below_a_file, "--junit-xml", tmp_path / "new/reports/j.xml")
    assert done.returncode == 0
    assert f"cannot write {below_a_file}: " in done.stderr
    assert (tmp_path / "new/reports/j.xml").exists()


def test_what_an_earlier_run_left_is_gone_before_a_run_begins(run_in_ci, tmp_path):
    """A run that is killed writes nothing: the report of the day before must not speak for it."""
    for name in ("s.md", "j.xml"):
        (tmp_path / name).write_text("of the day before")
    job = tmp_path / "job.yaml"
    job.unlink()
    os.mkfifo(job)
    run = ["--summary-file", tmp_path / "s.md", "--junit-xml", tmp_path / "j.xml"]
    process = subprocess.Popen([sys.executable, "-m", "rdu_batch", "run", job, *map(str, run)])
    with job.open("w"):
        # It has opened the job file, and waits for what is in it.
        process.kill()
        process.wait()
    assert not (tmp_path / "s.md").exists()
    assert not (tmp_path / "j.xml").exists()


def test_a_row_gives_the_runner_no_command(run_in_ci, tmp_path):
    """Not even one whose id is a command, shown among the samples."""
    rows = '{"id": "::error::owned", "text": "x"}\n{"id": "##[group]", "text": "y"}\n'
    (tmp_path / "rows.jsonl").write_text(rows)
    done = run_in_ci("--samples", "2", "--set", "input.id_field=id", "--ci", "github")
    assert done.returncode == 0
    assert "owned" in done.stderr
    assert commands_of(done) == []
    assert "##[" not in done.stderr


def test_with_json_alone_standard_error_has_nothing_but_errors(run_in_ci):
    """Standard output is the one object, as ever; an error is said to people, too."""
    done = run_in_ci("--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["predictions"] == 2
    done = run_in_ci("--json", "--set", "generation.temperature=warm")
    assert done.stderr.startswith("rdu-batch: error: ")
    assert json.loads(done.stdout)["exit"] == done.returncode == 3


def test_ctrl_c_before_anything_listens_for_it_is_told_too(tmp_path):
    """As exit 12, in every file that was asked for; then it goes on up."""
    told = CiOutput(tmp_path / "summary.md", tmp_path / "junit.xml", "none", "limit")
    with pytest.raises(KeyboardInterrupt), told.telling_errors("nightly"):
        raise KeyboardInterrupt
    for name in ("summary.md", "junit.xml"):
        assert "stopped by Ctrl" in (tmp_path / name).read_text().replace("&#45;", "-")
