"""Names of an output folder sort in shard order and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.job.run_paths import (
    INDEX_FOLDER,
    MANIFEST,
    PLAN,
    RUN_FOLDER,
    SUCCESS,
    ShardFile,
    dead_name,
    index_page,
    part_name,
    read_shard_file_name,
)


def test_the_names_are_those_of_the_design() -> None:
    """Consumers glob for them."""
    assert part_name(0, 40) == "part-00000-of-00040.jsonl"
    assert dead_name(39, 40) == "dead-00039-of-00040.jsonl"
    assert part_name(123456, 1234567) == "part-0123456-of-1234567.jsonl"
    assert index_page(7) == "_run/index/00007.jsonl"
    assert (PLAN, MANIFEST, SUCCESS) == ("_run/plan.json", "manifest.json", "_SUCCESS")
    assert INDEX_FOLDER.startswith(f"{RUN_FOLDER}/")


@given(st.integers(1, 10**7), st.data())
def test_names_read_back_and_sort_in_shard_order(num_shards: int, data: st.DataObject) -> None:
    """For any number of shards."""
    first = data.draw(st.integers(0, num_shards - 1))
    second = data.draw(st.integers(0, num_shards - 1))
    one, two = part_name(first, num_shards), part_name(second, num_shards)
    assert (one < two) == (first < second)
    assert read_shard_file_name(one) == ShardFile("part", first, num_shards, ".jsonl")
    assert read_shard_file_name(dead_name(first, num_shards, ".jsonl.gz")) == ShardFile(
        "dead", first, num_shards, ".jsonl.gz"
    )


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "part-00000.jsonl",
        "part-00040-of-00040.jsonl",
        "part-000001-of-00040.jsonl",
        "part-00001-of-00040.jsonl\n",
        ".part-00001-of-00040.jsonl",
        "part-1-of-2.jsonl",
    ],
)
def test_other_names_are_not_shard_files(name: str) -> None:
    """Only names this program writes."""
    assert read_shard_file_name(name) is None


def test_a_shard_outside_the_job_has_no_name() -> None:
    """A programming error."""
    for index in (-1, 3):
        with pytest.raises(ValueError, match=r"is not one of 0\.\.2"):
            part_name(index, 3)
    with pytest.raises(ValueError, match="wanted at least 0"):
        index_page(-1)
