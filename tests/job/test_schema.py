"""The JSON Schema is committed, complete, and agrees with the loader."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from rdu_batch.cli.schema import schema
from rdu_batch.errors import SpecError
from rdu_batch.job.loading import job_schema, load_spec

COMMITTED = Path(__file__).parents[2] / "jobs" / "job.schema.json"


def test_the_committed_schema_is_what_the_verb_prints() -> None:
    """After a change of the spec: `rdu-batch schema > jobs/job.schema.json`."""
    printed = CliRunner().invoke(schema)
    assert printed.exit_code == 0
    assert printed.output == COMMITTED.read_text(encoding="utf-8")


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of a schema with its path."""
    for name, part in node.get("properties", {}).items():
        yield f"{path}.{name}", part
    for name, part in node.get("$defs", {}).items():
        yield from leaves(part, name)


def test_every_leaf_has_a_description_of_one_line() -> None:
    """Editors show it beside the key."""
    found = job_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    told = dict(leaves(found))
    assert len(told) > 35
    for path, part in told.items():
        section = found["$defs"].get(part.get("$ref", "").rsplit("/", 1)[-1], part)
        assert len(section.get("description", "")) > 8, path
        assert "\n" not in section["description"], path


def test_the_schema_takes_whole_and_small_jobs(whole_job: str, small_job: str) -> None:
    """As an editor sees them, before {date} is filled."""
    checker = jsonschema.Draft202012Validator(job_schema())
    for text in (whole_job, small_job):
        assert list(checker.iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"promt": {}},
        {"version": 2},
        {"name": "Upper"},
        {"input": {"urls": []}},
        {"input": {"urls": ["a"], "limit": 0}},
        {"prompt": {}},
        {"prompt": {"field": "a", "template": "b"}},
        {"prompt": {"field": "a", "date": "22.11.2026"}},
        {"session": {}},
        {"session": {"kind": "eager"}},
        {"session": {"kind": "fake", "threads": 0}},
        {"generation": {"stop": [""]}},
        {"generation": {"stop": ["a", "a"]}},
        {"generation": {"top_p": 0}},
        {"generation": {"min_p": 0}},
        {"generation": {"repetition_penalty": 0}},
        {"generation": {"stop_token_ids": [-1]}},
        {"generation": {"stop_token_ids": [4, 4]}},
        {"generation": {"min_new_tokens": -1}},
        {"generation": {"num_samples": 0}},
        {"generation": {"logprobs": 1}},
        {"generation": {"overrides_field": ""}},
        {"output": {"url": "o", "format": "json"}},
        {"output": {"url": "o", "single_writer": "yes"}},
        {"workers": {"count": 0}},
        {"workers": {"count": "many"}},
        {"limits": {"max_dead_rows": "1"}},
        {"limits": {"max_dead_rows": 0.5}},
        {"limits": {"row_timeout_s": 0}},
        {"limits": {"session_memory_bytes": 0}},
        {"limits": {"session_memory_bytes": "8 GB"}},
    ],
)
def test_what_the_loader_refuses_is_red_in_an_editor_too(
    small_job: str, change: dict[str, Any]
) -> None:
    """Schema and loader agree about these mistakes."""
    changed = {**yaml.safe_load(small_job), **change}
    checker = jsonschema.Draft202012Validator(job_schema())
    assert list(checker.iter_errors(changed))
    with pytest.raises(SpecError):
        load_spec(json.dumps(changed), source="job.yaml")


def test_the_job_room_starts_without_stores_models_or_ray() -> None:
    """Not even through a library it imports."""
    program = (
        "import sys; import rdu_batch.job.loading, rdu_batch.job.plan, rdu_batch.job.run_paths; "
        "print(sorted({'torch', 'ray', 'fsspec', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=COMMITTED.parents[1],
    )
    assert done.stdout.strip() == "[]"


def test_the_readme_of_the_jobs_tells_every_generation_setting() -> None:
    """In its table, with its default."""
    text = COMMITTED.with_name("README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+`) \| (\S+) \| ", text, flags=re.MULTILINE)
    told = {
        key: default.strip("`") for keys, default in rows for key in re.findall(r"`(\w+)`", keys)
    }
    words = {"null": {"off", "none"}}
    for key, part in job_schema()["$defs"]["GenerationSpec"]["properties"].items():
        default = json.dumps(part["default"])
        assert told[key] in words.get(default, {default}), key
