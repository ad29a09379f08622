"""Samples are spread, repeatable, and all of a small plan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.dataset.sampling_rows import sampled_ordinals


@given(st.integers(0, 10**7), st.integers(1, 300), st.text(max_size=5))
def test_each_equal_part_gives_one_row_and_the_same_one_each_time(
    num_rows: int, size: int, seed: str
) -> None:
    """All rows where there are no more than asked for."""
    found = sampled_ordinals(num_rows, size, seed)
    assert found == sampled_ordinals(num_rows, size, seed)
    if num_rows <= size:
        assert found == list(range(num_rows))
        return
    assert len(found) == size
    for part, ordinal in enumerate(found):
        assert part * num_rows // size <= ordinal < (part + 1) * num_rows // size


def test_another_job_has_another_sample_and_rows_are_drawn_evenly() -> None:
    """Over many seeds each row of a part comes about as often as any other."""
    assert sampled_ordinals(10**6, 9, "a") != sampled_ordinals(10**6, 9, "b")
    counts = [0] * 10
    for seed in range(3000):
        counts[sampled_ordinals(20, 2, str(seed))[0]] += 1
    assert min(counts) > 220
    assert max(counts) < 380
