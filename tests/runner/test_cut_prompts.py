"""A job that cuts prompts: the same settings from its file to its lines."""

from __future__ import annotations

import json

import pytest

ROOM = 512  # of the fake session
LINES = [
    json.dumps({"id": "a", "text": "x" * 700, "label": 1}).encode(),
    json.dumps({"id": "b", "text": "short", "label": 2}).encode(),
    json.dumps({"id": "c", "text": "y" * (ROOM - 10), "label": 3}).encode(),
]


@pytest.fixture
def records(job):
    """Runs a job over ``LINES`` inline; its predictions and dead letters, and the exit code."""

    def run(**prompt):
        job.write(LINES, prompt={"field": "text", **prompt})
        done = job.run("--executor", "inline")
        assert done.returncode == 0, done.stderr
        names = ("part-00000-of-00001.jsonl", "dead-00000-of-00001.jsonl")
        paths = [job.output / name for name in names]
        return [
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
            for path in paths
        ]

    return run


@pytest.mark.parametrize("overflow", ["truncate_left", "truncate_right"])
def test_no_row_is_too_long_and_each_says_what_it_lost(records, overflow):
    """Room for max_new_tokens, 20, is left even where a prompt alone would have fit."""
    predictions, dead = records(overflow=overflow)
    assert dead == []
    told = [(one["num_prompt_tokens"], one["num_cut_tokens"]) for one in predictions]
    assert told == [(ROOM - 20, 700 - ROOM + 20), (5, 0), (ROOM - 20, 10)]
    assert list(predictions[0])[-2:] == ["num_cut_tokens", "label"]
    assert predictions[0]["finish_reason"] != "context_full"


def test_without_it_such_a_row_is_dead_and_no_line_has_the_key(records):
    """As ever."""
    predictions, dead = records()
    assert [one["reason"] for one in dead] == ["prompt_too_long"]
    assert not any("num_cut_tokens" in one for one in predictions)
