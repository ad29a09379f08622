"""Whole runs on S3 servers: sound ones, ones that lose replies, ones that ignore conditions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rdu_batch.storage.store import open_store

SetFaults = Callable[..., dict[str, Any]]


def write_job(folder: Path, output: str, num_rows: int = 25) -> Path:
    """A job of a few shards on the fake session."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(num_rows)))
    job = folder / "job.yaml"
    spec = {
        "version": 1,
        "name": "stores",
        "input": {"urls": [str(rows)]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "generation": {"max_new_tokens": 8},
        "output": {"url": output, "rows_per_shard": 10},
    }
    job.write_text(yaml.safe_dump(spec))
    return job


def rdu_batch(*arguments: object) -> tuple[int, dict[str, Any], str]:
    """Run a verb in a process of its own: exit code, last line of stdout, stderr."""
    command = [sys.executable, "-m", "rdu_batch", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout.strip().splitlines()[-1]), done.stderr


@pytest.mark.s3
@pytest.mark.parametrize("lost_as", ["503 Slow Down", "drop"])
def test_a_run_that_never_hears_of_a_creation_ends_as_any_other(
    s3_url: str, s3_faults: SetFaults, tmp_path: Path, lost_as: str
) -> None:
    """Plan, epoch, canary, every commit and the result: each is created, no reply arrives."""
    s3_faults(num_lost=1000, lost_as=lost_as)
    job = write_job(tmp_path, f"{s3_url}/out")
    code, summary, errors = rdu_batch("run", job, "--executor", "inline")
    assert (code, summary["rows"], summary["shards"]) == (0, 25, 3), errors
    num_lost = 1000 - s3_faults()["num_lost"]
    assert num_lost == len(["check", "plan", "epoch", "canary", *range(3), "result"])
    store = open_store(f"{s3_url}/out")
    epochs = [name for name in store.list_names("_run/drivers") if "heartbeat" not in name]
    assert epochs == ["_run/drivers/000001.json"]
    assert len(store.list_names("_run/sealed", recursive=True)) == 3
    assert store.list_names("_run/results") == ["_run/results/000001.json"]
    assert rdu_batch("verify", f"{s3_url}/out")[0] == 0


@pytest.mark.s3
def test_on_a_server_without_conditions_a_run_needs_the_promise_of_one_writer(
    s3_url: str, s3_faults: SetFaults, tmp_path: Path
) -> None:
    """Exit 6 with the ways out; with the promise it runs, is sound, and a rerun does nothing."""
    s3_faults(ignores_conditions=True)
    output = f"{s3_url}/out"
    job = write_job(tmp_path, output)
    code, said, errors = rdu_batch("run", job, "--executor", "inline")
    assert (code, said["exit"], said["error"]) == (6, 6, "CreateOnceUnsupported")
    assert f"rdu-batch probe {output}" in errors
    assert "output.single_writer: true" in errors
    assert open_store(output).list_names("", recursive=True) == []
    code, said, errors = rdu_batch("probe", output)
    assert (code, said["exit"], said["protocol"]) == (6, 6, "single_writer")
    assert "output.single_writer: true" in errors
    promise = ("--set", "output.single_writer=true", "--executor", "inline")
    code, summary, errors = rdu_batch("run", job, *promise)
    assert (code, summary["rows"], summary["shards"]) == (0, 25, 3), errors
    assert rdu_batch("verify", output)[0] == 0
    code, summary, errors = rdu_batch("run", job, *promise)
    assert (code, summary["state"]) == (0, "already complete"), errors


@pytest.mark.s3
def test_a_run_on_a_real_server_is_sound(seaweed_url: str, tmp_path: Path) -> None:
    """From an input on the same server; the second run finds it complete."""
    rows = "".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(25))
    open_store(f"{seaweed_url}/in").put_whole("rows.jsonl", rows.encode())
    job = write_job(tmp_path, f"{seaweed_url}/out")
    arguments = ("run", job, "--executor", "inline", "--set", f"input.urls=['{seaweed_url}/in/']")
    code, summary, errors = rdu_batch(*arguments)
    assert (code, summary["rows"], summary["shards"]) == (0, 25, 3), errors
    assert rdu_batch("verify", f"{seaweed_url}/out")[0] == 0
    code, summary, errors = rdu_batch(*arguments)
    assert (code, summary["state"]) == (0, "already complete"), errors
