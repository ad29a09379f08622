"""Specs and inputs for the tests of the dataset room."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdu_batch.job.spec import JobSpec

MakeSpec = Callable[..., JobSpec]


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    """A spec with these input URLs and this output; more parts of it by keyword."""

    def make(urls: list[str], output_url: str, /, **changes: Any) -> JobSpec:
        values: dict[str, Any] = {
            "version": 1,
            "name": "test",
            "input": {"urls": urls},
            "prompt": {"field": "text"},
            "session": {"kind": "fake"},
            "output": {"url": output_url},
        }
        for part, leaves in changes.items():
            values[part] = {**values.get(part, {}), **leaves}
        return JobSpec.model_validate_json(json.dumps(values))

    return make


@pytest.fixture
def rdu_batch(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own, in an empty folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rdu_batch", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run
