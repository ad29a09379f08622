"""The files of ``deploy/ci/``: valid for their systems, and doing what they say with exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parent.parent / "deploy" / "ci"


@pytest.mark.parametrize(
    ("schema", "name"),
    [("vendor.github-workflows", "github.yml"), ("vendor.gitlab-ci", "gitlab-ci.yml")],
)
def test_a_file_is_valid_for_its_system(schema, name, tmp_path):
    """By the system's own schema, which refuses a key that it does not know."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]

    def check(path):
        return subprocess.run([*command, path], capture_output=True, text=True, check=False)

    done = check(FOLDER / name)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / name
    wrong.write_text((FOLDER / name).read_text().replace("timeout", "time_out"))
    assert check(wrong).returncode == 1


def scripts():
    """The shell of both files that runs the job."""
    github = yaml.safe_load((FOLDER / "github.yml").read_text())
    steps = github["jobs"]["batch"]["steps"]
    gitlab = yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text())["nightly-batch"]
    return {
        "github": next(step["run"] for step in steps if step.get("name") == "Run"),
        "gitlab": "\n".join(
            one for one in gitlab["script"] if "pip" not in one and "venv " not in one
        ),
    }


def run_script(script, folder, codes, **variables):
    """Run it with a stand-in that notes its words and ends with the next of the codes."""
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (folder / "codes").write_text("".join(f"{code}\n" for code in codes))
    program = binaries / "rdu-batch"
    program.write_text(
        '#!/bin/bash\nprintf "%s " "$@" >> words; echo >> words\n'
        "code=$(head -n 1 codes); sed -i 1d codes; exit $code\n"
    )
    program.chmod(0o755)
    stub = folder / "stubs" / "sleep"
    stub.parent.mkdir()
    stub.write_text("#!/bin/bash\n")
    stub.chmod(0o755)
    path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        check=False,
        env=os.environ | {"PATH": path} | variables,
    )
    return done.returncode, (folder / "words").read_text().splitlines()


@pytest.mark.parametrize(
    ("codes", "ends_with", "num_runs"),
    [([0], 0, 1), ([13, 0], 0, 2), ([13, 13, 13, 0], 13, 3), ([5], 5, 1), ([13, 4], 4, 2)],
)
def test_on_github_only_an_unreachable_cluster_is_tried_again(tmp_path, codes, ends_with, num_runs):
    """Three times at most; every other code is the step's."""
    code, words = run_script(scripts()["github"], tmp_path, codes, DATE="2026-11-22")
    assert (code, len(words)) == (ends_with, num_runs)
    assert all("--date 2026-11-22 " in one for one in words)


@pytest.mark.parametrize("system", ["github", "gitlab"])
def test_the_command_is_one_that_the_program_takes(system, tmp_path):
    """Its options exist; without a date it is yesterday's job."""
    code, (words,) = run_script(scripts()[system], tmp_path, [0], DATE="")
    yesterday = subprocess.run(
        ["date", "--utc", "--date=yesterday", "+%F"], capture_output=True, text=True, check=True
    )
    assert code == 0
    assert f"--date {yesterday.stdout.strip()} " in words
    done = subprocess.run(
        [sys.executable, "-m", "rdu_batch", *words.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    # No such job file, but no word of it unknown (2).
    assert done.returncode == 3, done.stderr
    assert "jobs/NIGHTLY.yaml: the job file cannot be read" in done.stderr


def test_gitlab_goes_on_after_what_a_rerun_mends_and_warns_of_dead_letters():
    """One at a time; 11 and 13 are tried again, 5 is a warning."""
    job = yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text())["nightly-batch"]
    assert job["retry"]["exit_codes"] == [11, 13]
    assert job["allow_failure"]["exit_codes"] == [5]
    assert job["resource_group"]
    assert job["interruptible"] is False
