"""A whole job file, and rows, for the tests of the job room."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rdu_batch.job.records import Row

WHOLE_JOB = r"""# yaml-language-server: $schema=job.schema.json
version: 1
name: reviews-nightly
input:
  urls: ["s3://corpus/reviews/{date}/*.jsonl"]
  id_field: id                      # optional, carried through
  carry: [label]
prompt:
  template: "Review: {{ row.text }}\nSentiment:"
session:
  kind: inductor
  artifact: s3://models/smollm2-135m-1x1024-bf16/
generation: {max_new_tokens: 64, temperature: 0.0, stop: ["\n"], seed: 0}
output: {url: "s3://corpus/predictions/{date}/", format: jsonl, rows_per_shard: 10000}
workers: {count: auto, min: 1, max: null, cpus: 1, gpus: 0, resources: {}}
limits: {max_dead_rows: 0.1%, attempts_per_row: 3, row_timeout_s: 120, deadline_s: null}
"""

SMALL_JOB = """version: 1
name: small
input:
  urls: [in.jsonl]
prompt:
  field: text
session:
  kind: fake
output:
  url: out
"""


@pytest.fixture
def whole_job() -> str:
    """A job file that says everything, with {date} in it."""
    return WHOLE_JOB


@pytest.fixture
def small_job() -> str:
    """The least a job file can say."""
    return SMALL_JOB


@pytest.fixture(scope="session")
def row_of() -> Callable[..., Row]:
    """Makes a row from the bytes of a line."""

    def make(line_bytes: bytes, *, byte_offset: int = 7, line: int = 3) -> Row:
        return Row(5, 2, line, "a/b.jsonl", byte_offset, line_bytes)

    return make
