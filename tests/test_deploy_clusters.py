"""The Slurm script and the cluster file of ``deploy/``: valid, and truthful by exit codes."""

import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml

DEPLOY = Path(__file__).parent.parent / "deploy"


def test_the_cluster_file_is_valid_for_rays_launcher():
    """By the schema that Ray brings, which refuses keys that it does not know."""
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    cluster = yaml.safe_load((DEPLOY / "ray-launcher" / "aws.yaml").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "max_worker": 1}, schema)
    assert cluster["head_node_type"] in cluster["available_node_types"]


def test_the_cluster_file_leaves_nothing_to_rays_defaults_that_cannot_work():
    """Ray's image has Python 3.6, the role it makes may not start workers that have one."""
    text = (DEPLOY / "ray-launcher" / "aws.yaml").read_text()
    cluster = yaml.safe_load(text)
    for kind in cluster["available_node_types"].values():
        assert "CHANGE" in kind["node_config"]["ImageId"]
        assert "CHANGE" in kind["node_config"]["IamInstanceProfile"]["Name"]
    assert "iam:PassRole" in text
    # Found on no package index: what is installed is what was copied there.
    (folder,) = cluster["file_mounts"]
    install = cluster["setup_commands"][-1]
    assert f"$(ls {folder}rdu_batch-*.whl)[s3]" in install


@pytest.fixture
def sbatch(tmp_path):
    """Run the script where Slurm's and Ray's commands are stand-ins, as is the program.

    ``srun`` runs what it is given, and ``ray symmetric-run`` what comes after ``--``; each notes
    its words, and ``ray`` how it would ask for tokens.
    """
    folder, home = tmp_path / "bin", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    note = f'{{ printf "%s|" "$(basename "$0")" "$@"; echo; }} >> {tmp_path}/words\n'

    def stand_in(name, text):
        path = folder / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def run(program="exit 0", *, status=0, left="1-00:00:00", srun_code=None, **variables):
        stand_in("scontrol", "printf 'node1\\nnode2\\n'")
        stand_in("squeue", f"echo '{left}'")
        told = "" if srun_code is None else f"exit {srun_code}"
        skip = 'while [ "$1" != ray ]; do shift; done'
        stand_in("srun", f'{note}{skip}\ncode=0\n"$@" || code=$?\n{told}\nexit "$code"')
        mode = f'echo "mode ${{RAY_AUTH_MODE-unset}}" >> {tmp_path}/words\n'
        stand_in("ray", f'{mode}while [ "$1" != -- ]; do shift; done\nshift\n"$@"')
        stand_in("rdu-batch", f'{note}if [ "$1" = status ]; then exit {status}; fi\n{program}')
        given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        slurm = {
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "16",
        }
        path = f"{folder}:{given['PATH']}"
        done = subprocess.run(
            ["bash", DEPLOY / "slurm" / "rdu-batch.sbatch"],
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
            env={**given, **slurm, "HOME": str(home), "PATH": path, **variables},
        )
        words = tmp_path / "words"
        return done, words.read_text().splitlines() if words.exists() else []

    run.home, run.folder = home, folder
    return run


GIVEN = {"JOB": "my job.yaml", "DATE": "2026-11-22", "OUTPUT": "o u"}


@pytest.mark.parametrize(
    ("run_code", "status_code", "srun_code", "code"),
    [
        (0, 0, None, 0),
        (0, 12, None, 12),
        (5, 0, None, 5),
        (12, 0, None, 12),
        # Of several nodes srun tells the highest code: of those that it killed.
        (12, 0, 137, 12),
        (0, 0, 137, 0),
    ],
)
def test_the_slurm_script_ends_as_the_job_did(sbatch, run_code, status_code, srun_code, code):
    """Also where Ray says 0 because it never started: then the output is not complete."""
    done, words = sbatch(f"exit {run_code}", status=status_code, srun_code=srun_code, **GIVEN)
    assert done.returncode == code, done.stderr
    assert "|--cpus-per-task=16|ray|symmetric-run|" in words[0], "srun takes 1 unless it is told"
    assert "|--address|node1:6379|--min-nodes|2|" in words[0]
    assert "rdu-batch|run|my job.yaml|--address|auto|--date|2026-11-22|" in words
    asked = [line for line in words if line.startswith("rdu-batch|status|")]
    assert asked == ([] if run_code else ["rdu-batch|status|o u|--exit-code|"])


@pytest.mark.parametrize("srun_code", [1, 143])
def test_a_driver_that_never_ran_has_no_code(sbatch, srun_code):
    """Then it is srun's."""
    path = sbatch.folder / "timeout"
    path.write_text("#!/bin/sh\nkill -9 $PPID\n")
    path.chmod(0o755)
    done, words = sbatch(srun_code=srun_code, **GIVEN)
    assert done.returncode == srun_code
    assert not any(line.startswith("rdu-batch|") for line in words)


#: As the program does: asked to stop, it reports and ends with 12.
STOPPABLE = """trap 'echo stopped; exit 12' TERM
for _ in $(seq 150); do sleep 0.1; done
exit 0"""


def test_the_driver_is_asked_to_stop_before_the_time_limit(sbatch):
    """By SIGTERM, in time to report; its 12 comes through."""
    done, _ = sbatch(STOPPABLE, left="0:02", **GIVEN)
    assert done.returncode == 12, done.stderr
    assert "stopped" in done.stdout


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        ("1-02:03:04", ((24 + 2) * 60 + 3) * 60 + 4 - 120),
        ("  08:09:09", (8 * 60 + 9) * 60 + 9 - 120),
        ("09:00", 540 - 120),
        ("4:00", 180),
        ("UNLIMITED", 0),
        ("NOT_SET", 0),
        ("INVALID", 0),
        ("", 0),
    ],
)
def test_the_time_that_slurm_leaves_is_read_as_it_writes_it(sbatch, left, seconds):
    """Two minutes less, of a short time a quarter; where there is no limit, it says so."""
    path = sbatch.folder / "timeout"
    path.write_text('#!/bin/sh\necho "timeout $2"\n')
    path.chmod(0o755)
    done, _ = sbatch(left=left, **GIVEN)
    assert done.returncode == 0, done.stderr
    (told,) = (int(line.split()[1]) for line in done.stdout.splitlines() if "timeout" in line)
    assert seconds - 5 <= told <= seconds
    assert ("no time limit" in done.stderr) == (seconds == 0)


def test_ray_is_the_one_beside_the_program(sbatch, tmp_path):
    """Another one in PATH has other packages."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ray = elsewhere / "ray"
    ray.write_text("#!/bin/sh\necho the wrong Ray\nexit 99\n")
    ray.chmod(0o755)
    path = f"{elsewhere}:{sbatch.folder}:{os.environ['PATH']}"
    link = tmp_path / "link"
    link.symlink_to(sbatch.folder / "rdu-batch")
    for program in (sbatch.folder / "rdu-batch", link):
        done, _ = sbatch(RDU_BATCH=str(program), PATH=path, **GIVEN)
        assert done.returncode == 0, done.stderr
        assert "wrong Ray" not in done.stdout


@pytest.mark.parametrize(
    ("token", "variables", "mode"),
    [
        (None, {}, "unset"),
        ("secret\n", {}, "token"),
        (" \n", {}, "unset"),
        ("secret", {"RAY_AUTH_MODE": "disabled"}, "disabled"),
        ("secret", {"RAY_AUTH_TOKEN_PATH": "nowhere"}, "unset"),
        (None, {"RAY_AUTH_TOKEN": "secret"}, "token"),
        (None, {"RAY_AUTH_TOKEN_PATH": "bin/scontrol"}, "token"),
    ],
)
def test_all_nodes_use_the_token_that_the_head_would_find(sbatch, token, variables, mode):
    """``ray start --head`` turns tokens on where one lies; the nodes that join must be told."""
    if token is not None:
        (sbatch.home / ".ray").mkdir()
        (sbatch.home / ".ray" / "auth_token").write_text(token)
    done, words = sbatch(**variables, **GIVEN)
    assert done.returncode == 0, done.stderr
    assert f"mode {mode}" in words
    assert "|--export=ALL|" in words[0], "what is set here reaches the other nodes"


def test_the_slurm_script_names_what_it_was_not_given(sbatch):
    """Before anything is started."""
    done, words = sbatch(JOB="job.yaml")
    assert done.returncode != 0
    assert "OUTPUT is output.url" in done.stderr
    assert words == []
    done, words = sbatch(RDU_BATCH="no-such-program", **GIVEN)
    assert done.returncode == 2
    assert "found no program no-such-program" in done.stderr
    assert words == []
