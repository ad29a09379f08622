"""Small jobs on the fake session, the command line as a real process, and trees of bytes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

#: Rows with every kind of trouble that becomes a dead letter, between sound ones.
TROUBLED_LINES = [
    b'{"id": "a", "text": "first", "label": 1.50}',
    b"",
    b"this is not JSON",
    b'{"id": "b", "label": "no text"}',
    b'{"id": "c", "text": 17}',
    b'{"id": "d", "text": "' + b"long " * 200 + b'"}',
    b'{"id": "e", "text": "last", "label": [1,  2]}',
]


class JobFolder:
    """A job file with its input in a folder of its own, and ways to run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "job.yaml"
        self.output = folder / "out"

    def write(self, lines, *, rows_per_shard=7, **sections):
        """Write input and job file; keyword arguments replace whole sections."""
        (self.folder / "rows.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        spec = {
            "version": 1,
            "name": "test",
            "input": {"urls": [f"{self.folder}/rows.jsonl"], "id_field": "id", "carry": ["label"]},
            "prompt": {"field": "text"},
            "session": {"kind": "fake"},
            "generation": {"max_new_tokens": 20},
            "output": {"url": str(self.output), "rows_per_shard": rows_per_shard},
            "workers": {"cpus": 0.5},
            "limits": {"max_dead_rows": "100%"},
            **sections,
        }
        self.path.write_text(yaml.safe_dump(spec))
        return self

    def command(self, verb, *arguments):
        return [sys.executable, "-m", "rdu_batch", verb, *map(str, arguments)]

    def run(self, *arguments, env=None):
        """``rdu-batch run`` in a process of its own."""
        return subprocess.run(
            self.command("run", self.path, *arguments),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(env or {})},
        )


def last_json(done):
    """The JSON object that ends standard output; the numbers of a job's summary add up."""
    document = json.loads(done.stdout.strip().splitlines()[-1])
    if "worker_seconds" in document:
        check_sums(document)
    return document


def check_sums(summary):
    """Rows and worker-seconds are the sums of what they are made of."""
    assert summary["rows"] == summary["predictions"] + summary["dead"]
    assert summary["predictions"] <= sum(summary["finish_reasons"].values())
    assert summary["dead"] == sum(summary["dead_reasons"].values())
    classes = dict(summary["worker_seconds"])
    total_s = classes.pop("total_s")
    assert sum(classes.values()) == pytest.approx(total_s, abs=0.0005)
    assert min(classes.values()) >= 0
    # A worker lives from its start in the run to the run's end at most.
    assert total_s <= summary["wall_s"] * (summary["workers"] + summary["workers_lost"])


def published(output):
    """Name to sha256 of everything that a consumer may read."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(output).iterdir())
        if path.is_file()
    }


@pytest.fixture(scope="session")
def job_folder_class():
    return JobFolder


@pytest.fixture
def job(tmp_path):
    return JobFolder(tmp_path)


@pytest.fixture
def make_job(tmp_path):
    """Jobs in folders of their own; the same lines give the same input bytes."""

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        return JobFolder(folder)

    return make


@pytest.fixture(scope="session")
def read_last_json():
    return last_json


@pytest.fixture(scope="session")
def published_bytes():
    return published


@pytest.fixture(scope="session")
def troubled_lines():
    return list(TROUBLED_LINES)


def sound_lines(num_rows):
    """Rows of mixed length that the fake session predicts."""
    return [
        json.dumps({"id": f"r{n}", "text": f"row {n} " + "word " * (n % 13), "label": n}).encode()
        for n in range(num_rows)
    ]


@pytest.fixture(scope="session")
def make_lines():
    return sound_lines
