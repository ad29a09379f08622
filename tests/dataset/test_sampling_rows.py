"""Samples are spread, repeatable, and all of a small plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.dataset.sampling_rows import LargeFile, SampleFrame, frame_of, sampled_ordinals
from rdu_batch.job.plan import InputFile, Window


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


def file_of(num_rows: int, *, in_first: int = 0, form: str = "jsonl.gz") -> InputFile:
    """A file of some rows, so many of which begin in the first of its two windows."""
    windows = (Window(in_first, in_first, 0, "0" * 16), Window(0, num_rows - in_first, 9, "1" * 16))
    return InputFile(
        0,
        "/x",
        "x",
        form,
        1,
        None,
        100 if in_first else 10,
        "sha256:0",
        num_rows,
        num_rows,
        windows,
    )


def test_of_large_files_only_rows_that_begin_and_end_in_the_first_window_can_be_drawn() -> None:
    """Others are read anywhere; a limit ends the last file early."""
    files = [file_of(10), file_of(6), file_of(50, in_first=4), file_of(7), file_of(30, in_first=9)]
    frame = frame_of(files, 10 + 6 + 50 + 7 + 5, 99)
    assert frame == SampleFrame(((0, 16), (66, 73)), (LargeFile(16, 66, 3), LargeFile(73, 78, 5)))
    assert frame_of([file_of(20, in_first=2, form="jsonl")], 20, 99) == SampleFrame(((0, 20),))


@given(st.integers(1, 40), st.text(max_size=3))
def test_each_kind_of_file_has_its_share_of_a_sample(size: int, seed: str) -> None:
    """Rows near the start stand for their whole file; a file without such rows has no share."""
    frame = SampleFrame(((0, 100), (500, 600)), (LargeFile(100, 500, 6), LargeFile(600, 700, 0)))
    drawn = frame.draw(size, seed)
    assert drawn == frame.draw(size, seed)
    assert set(drawn.near_start) <= set(range(100, 106))
    assert set(drawn.anywhere) <= {*range(100), *range(500, 600)}
    assert len(drawn.anywhere) + len(drawn.near_start) <= size
    if size > 1:
        assert drawn.anywhere
        assert drawn.near_start
    plain = SampleFrame(((0, 1000),)).draw(size, seed)
    assert plain == (sampled_ordinals(1000, size, seed), [])


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ([], ((0, 10), (20, 30))),
        ([(0, 3), (8, 22)], ((3, 8), (22, 30))),
        ([(2, 4), (4, 6), (29, 30)], ((0, 2), (6, 10), (20, 29))),
        ([(0, 30)], ()),
    ],
)
def test_rows_that_are_taken_over_are_not_sampled(
    taken: list[tuple[int, int]], left: tuple[tuple[int, int], ...]
) -> None:
    """What is left of the ranges, in order; a large file that is taken over is gone, too."""
    frame = SampleFrame(((0, 10), (20, 30)), (LargeFile(10, 20, 5),))
    rest = frame.without(taken)
    assert rest.ranges == left
    assert rest.large == (() if (0, 30) in taken or (8, 22) in taken else frame.large)
