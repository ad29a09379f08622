"""Inputs and output in an object store: pins by etag, one plan, rows read back."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from rdu_batch.dataset.planning import load_plan, make_plan, save_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import InputError
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import open_store

pytestmark = pytest.mark.s3


def _spec(url: str) -> JobSpec:
    return JobSpec.model_validate_json(
        f"""{{"version": 1, "name": "test", "input": {{"urls": ["{url}/in/*.jsonl"]}},
        "prompt": {{"field": "text"}}, "session": {{"kind": "fake"}},
        "output": {{"url": "{url}/out"}}}}"""
    )


def test_rows_of_an_object_store_read_back_and_are_pinned_by_etag(s3_url: str) -> None:
    """A file of the same size with other bytes is refused at the first look."""
    inputs, output = open_store(f"{s3_url}/in"), open_store(f"{s3_url}/out")
    lines = [b'{"text": "%d %s"}' % (number, b"x" * 900) for number in range(5000)]
    inputs.put_whole("a.jsonl", b"\n".join(lines))
    inputs.put_whole("b.jsonl", b'{"text": "b"}\n')
    plan = save_plan(output, make_plan(_spec(s3_url), "sha256:0"))
    assert (plan.num_files, plan.num_rows) == (2, 5001)
    files = list(RowReader(output, plan).input_files())
    assert all(file.etag and file.windows_sha256 for file in files)
    got = [row.line_bytes for row in RowReader(output, plan).read_rows(1500, 4900)]
    assert got == lines[1500:4900]
    inputs.put_whole("b.jsonl", b'{"text": "c"}\n')
    with pytest.raises(InputError, match="its etag is"):
        list(RowReader(output, plan).read_rows(5000, 5001))
    inputs.delete("b.jsonl")
    with pytest.raises(InputError, match="it is gone"):
        list(RowReader(output, plan).read_rows(5000, 5001))


def test_planners_that_race_on_an_object_store_end_with_one_plan(s3_url: str) -> None:
    """Each sees other inputs; all get the same plan and its index is whole."""
    inputs, output = open_store(f"{s3_url}/in"), open_store(f"{s3_url}/out")
    planned = []
    for number in range(1, 5):
        inputs.put_whole("a.jsonl", uuid.uuid4().hex.encode() + b"\n1" * number)
        planned.append(make_plan(_spec(s3_url), "sha256:0"))
    with ThreadPoolExecutor(len(planned)) as pool:
        plans = list(pool.map(lambda each: save_plan(output, each), planned))
    assert len({plan.digest for plan in plans}) == 1
    assert load_plan(output) == plans[0]
    [file] = RowReader(output, plans[0]).input_files()
    assert file.num_rows == plans[0].num_rows
