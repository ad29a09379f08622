"""The job files that ship: each loads, plans and runs as it is written, on the fake session."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
JOB_FILES = sorted((ROOT / "jobs").glob("*.yaml"))


def test_there_are_job_files():
    """The parametrized test below would pass on an empty folder."""
    assert [path.name for path in JOB_FILES] == ["reviews.yaml"]


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.stem)
def test_a_shipped_job_file_runs_from_the_root(path, tmp_path):
    """Only its session and output are replaced."""
    command = [sys.executable, "-m", "rdu_batch", "run", str(path.relative_to(ROOT))]
    settings = ["session.kind=fake", "session.artifact=null", f"output.url={tmp_path}/out"]
    sets = [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [*command, "--executor", "inline", "--limit", "20", "--samples", "3", *sets],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert summary["rows"] == summary["predictions"] + summary["dead"] == 20, done.stderr
    assert done.stderr.count("  ->  ") == 3


def test_the_movie_reviews_are_what_the_demo_promises():
    """At least 200, with id, text and label, of mixed tone and length."""
    lines = (ROOT / "jobs/data/movie_reviews.jsonl").read_text().splitlines()
    reviews = [json.loads(line) for line in lines]
    assert len(reviews) >= 200
    assert all(set(review) == {"id", "text", "label"} for review in reviews)
    assert len({review["id"] for review in reviews}) == len(reviews)
    assert {review["label"] for review in reviews} == {"positive", "negative", "mixed"}
    lengths = [len(review["text"].split()) for review in reviews]
    assert min(lengths) < 8 < 80 < max(lengths)
