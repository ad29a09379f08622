"""``rdu-batch plan`` as a person types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunVerb = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job file beside its inputs, with relative URLs and a date."""
    (tmp_path / "in" / "2026-11-22").mkdir(parents=True)
    (tmp_path / "in" / "2026-11-22" / "a.jsonl").write_bytes(b'{"text": "1"}\n\n{"text": "22"}\n')
    (tmp_path / "in" / "2026-11-22" / "b.jsonl").write_bytes(b'{"text": "3"}')
    job = tmp_path / "job.yaml"
    job.write_text(
        "version: 1\nname: reviews\ninput: {urls: ['in/{date}/*.jsonl']}\nprompt: {field: text}\n"
        "session: {kind: fake}\noutput: {url: out/, rows_per_shard: 2}\n"
    )
    return job


def test_a_new_job_is_described_and_nothing_is_written(
    rdu_batch: RunVerb, job: Path, tmp_path: Path
) -> None:
    """The last line of stdout is JSON; the table on stderr says the same for people."""
    before = sorted(tmp_path.rglob("*"))
    done = rdu_batch("plan", str(job), "--date", "2026-11-22")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["job_digest"].startswith("sha256:")
    del found["job_digest"], found["prediction"]
    assert found == {
        "name": "reviews",
        "files": 2,
        "rows": 3,
        "shards": 2,
        "bytes": 43,
        "longest_rows": [
            {"path": "a.jsonl", "line": 3, "bytes": 14},
            {"path": "a.jsonl", "line": 1, "bytes": 13},
            {"path": "b.jsonl", "line": 1, "bytes": 13},
        ],
        "output": str(tmp_path / "out"),
        "output_state": "new",
        "recut": {"files": 0, "stored_bytes": 0, "decoded_bytes": 0},
        "differences": [],
        "exit": 0,
    }
    for words in ("rows", "longest rows", "a.jsonl:3", "(new)"):
        assert words in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_in_progress_complete_and_of_another_job(
    rdu_batch: RunVerb, job: Path, tmp_path: Path
) -> None:
    """Each is told by its state; another job is exit 3 with the difference."""
    from rdu_batch.dataset.planning import make_plan, save_plan
    from rdu_batch.job.loading import load_spec
    from rdu_batch.sessions.registry import FAKE_ARTIFACT_DIGEST
    from rdu_batch.storage.store import open_store

    inputs = f"input.urls=['{tmp_path}/in/{{date}}/*.jsonl']"
    spec = load_spec(job.read_text(), source="job", date="2026-11-22", overrides=[inputs])
    output = open_store(str(tmp_path / "out"))
    plan = save_plan(output, make_plan(spec, FAKE_ARTIFACT_DIGEST))

    def planned(*more: str) -> dict[str, object]:
        done = rdu_batch("plan", str(job), "--date", "2026-11-22", "--set", inputs, *more)
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["exit"] == done.returncode
        return dict(found)

    (tmp_path / "in" / "2026-11-22" / "c.jsonl").write_bytes(b"{}\n")
    found = planned()
    assert (found["output_state"], found["rows"], found["exit"]) == ("in progress", 3, 0)
    assert found["job_digest"] == plan.job_digest
    output.put_whole("_SUCCESS", b"1")
    assert planned()["output_state"] == "complete"
    found = planned("--set", "generation.max_new_tokens=8", "--limit", "1")
    assert (found["output_state"], found["rows"], found["exit"]) == ("another job", 1, 3)
    assert found["differences"] == ["generation.max_new_tokens: 64 -> 8", "input.limit: null -> 1"]


def test_a_missing_input_is_exit_4_with_a_json_line(rdu_batch: RunVerb, job: Path) -> None:
    """The error is a paragraph on stderr and an object on stdout."""
    done = rdu_batch("plan", str(job), "--date", "2020-01-01")
    assert done.returncode == 4
    assert json.loads(done.stdout.splitlines()[-1])["exit"] == 4
    assert "no file matches in/2020-01-01/*.jsonl, of 0 files under " in done.stderr
    assert "Traceback" not in done.stderr


def test_planning_imports_neither_torch_nor_ray(job: Path, tmp_path: Path) -> None:
    """The verb starts at once and runs where they are not installed."""
    import sys

    program = f"""
import sys
from rdu_batch.cli.main import run
code = run(["plan", {str(job)!r}, "--date", "2026-11-22", "--set", "input.urls=['{tmp_path}/in']"])
print(code, [name for name in ("torch", "ray", "transformers", "s3fs") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
