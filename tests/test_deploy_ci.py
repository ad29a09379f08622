"""The files of ``deploy/ci/``: valid for their systems, and doing what they say with exit codes."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


#: When each system created what runs now, or is run again days later.
CREATED = "2026-11-23T00:30:05Z"


def scripts():
    """The shell of both files that finds the day and runs the job."""
    github = yaml.safe_load((FOLDER / "github.yml").read_text())
    steps = {step.get("name"): step for step in github["jobs"]["batch"]["steps"]}
    gitlab = yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text())["nightly-batch"]
    # GitHub runs each step by itself, and hands variables on by a file.
    handed_on = 'set -a; . "$GITHUB_ENV"; set +a'
    return {
        "github": "\n".join([steps["Day"]["run"], handed_on, steps["Run"]["run"]]),
        "gitlab": "\n".join(gitlab["script"]),
    }


@pytest.fixture
def api_url():
    """GitHub's API as far as the workflow asks it: when a run was created, for a token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            is_asked = self.path == "/repos/you/corpus/actions/runs/77"
            is_allowed = self.headers["Authorization"] == "Bearer t0ken"
            self.send_response(200 if is_asked and is_allowed else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"id": 77, "created_at": CREATED}).encode())

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run_script(tmp_path, api_url):
    """Run one with a stand-in that notes its words and ends with a code."""

    def run(system, code, **variables):
        program = tmp_path / "stubs" / "rdu-batch"
        program.parent.mkdir()
        program.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > words\nexit {code}\n')
        program.chmod(0o755)
        given = {
            "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_ENV": str(tmp_path / "env"),
            "GITHUB_API_URL": api_url,
            "GITHUB_REPOSITORY": "you/corpus",
            "GITHUB_RUN_ID": "77",
            "GITHUB_TOKEN": "t0ken",
            "CI_PIPELINE_CREATED_AT": CREATED,
            "DATE": "",
        }
        done = subprocess.run(
            ["bash", "-e", "-c", scripts()[system]],
            cwd=tmp_path,
            check=False,
            env=os.environ | given | variables,
        )
        return done.returncode, (tmp_path / "words").read_text().splitlines()

    return run


@pytest.mark.parametrize("system", ["github", "gitlab"])
@pytest.mark.parametrize("code", [0, 4, 5, 11, 12, 13])
def test_the_exit_code_is_the_jobs(run_script, system, code):
    """Of the day that was asked for."""
    ended_with, words = run_script(system, code, DATE="2026-11-19")
    assert ended_with == code
    assert words[words.index("--date") + 1] == "2026-11-19"


@pytest.mark.parametrize("system", ["github", "gitlab"])
def test_without_a_date_it_is_the_day_before_the_tick_was_created(run_script, tmp_path, system):
    """Whenever it is run again; and the program takes every word of the command."""
    code, words = run_script(system, 0)
    assert code == 0
    assert words[words.index("--date") + 1] == "2026-11-22"
    done = subprocess.run(
        [sys.executable, "-m", "rdu_batch", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    # No such job file, but no word of it unknown (2).
    assert done.returncode == 3, done.stderr
    assert "jobs/nightly.yaml: the job file cannot be read" in done.stderr


def test_on_github_ticks_wait_for_each_other_and_a_day_by_hand_for_none():
    """A queue holds one: days that are made up for would cancel each other."""
    workflow = yaml.safe_load((FOLDER / "github.yml").read_text())
    assert workflow["concurrency"] == {
        "group": "rdu-batch-nightly-${{ inputs.date || 'tick' }}",
        "cancel-in-progress": False,
    }


def test_gitlab_goes_on_after_what_a_rerun_mends_and_warns_of_dead_letters():
    """One at a time; 11 and 13 are tried again, 5 is a warning."""
    job = yaml.safe_load((FOLDER / "gitlab-ci.yml").read_text())["nightly-batch"]
    assert job["retry"]["exit_codes"] == [11, 13]
    assert job["allow_failure"]["exit_codes"] == [5]
    assert job["resource_group"]
    assert job["interruptible"] is False
