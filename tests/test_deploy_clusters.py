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


@pytest.fixture
def sbatch(tmp_path):
    """Run the script where Slurm's commands and the program only note their words."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def stand_in(name, text):
        path = folder / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    stand_in("scontrol", "printf 'node1\\nnode2\\n'")

    def run(run_code, status_code, **variables):
        stand_in("srun", f'printf "%s|" srun "$@" >> words; echo >> words; exit {run_code}')
        stand_in("rdu-batch", f'printf "%s|" "$@" >> words; echo >> words; exit {status_code}')
        slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2"}
        done = subprocess.run(
            ["bash", DEPLOY / "slurm" / "rdu-batch.sbatch"],
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                **slurm,
                "SLURM_CPUS_PER_TASK": "16",
                "PATH": f"{folder}:{os.environ['PATH']}",
                **variables,
            },
        )
        words = tmp_path / "words"
        return done, words.read_text().splitlines() if words.exists() else []

    return run


@pytest.mark.parametrize(
    ("run_code", "status_code", "code"), [(0, 0, 0), (0, 12, 12), (5, 0, 5), (143, 0, 143)]
)
def test_the_slurm_script_ends_as_the_job_did(sbatch, run_code, status_code, code):
    """Also where Ray says 0 because it never started: then the output is not complete."""
    done, words = sbatch(run_code, status_code, JOB="my job.yaml", DATE="2026-11-22", OUTPUT="o u")
    assert done.returncode == code, done.stderr
    assert words[0].startswith("srun|--kill-on-bad-exit=1|ray|symmetric-run|--address|node1:6379|")
    run = "|--|rdu-batch|run|my job.yaml|--address|auto|--date|2026-11-22|"
    assert words[0].endswith(run)
    assert words[1:] == ([] if run_code else ["status|o u|--exit-code|"])


def test_the_slurm_script_names_what_it_was_not_given(sbatch):
    """Before anything is started."""
    done, words = sbatch(0, 0, JOB="job.yaml")
    assert done.returncode != 0
    assert "OUTPUT is output.url" in done.stderr
    assert words == []
