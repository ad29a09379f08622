"""Which rows of a plan are rows of another, earlier one: pure decisions over two indexes.

A file is unchanged if it has the same path and the same content, window by window. Its rows then
have the same lines and the same seeds, whatever came before it, so what was made of them holds for
sampled rows, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rdu_batch.job.plan import InputFile, Plan, Shard


@dataclass(frozen=True)
class SameRows:
    """Rows that both plans have, one after the other, all of one file."""

    first_row: int
    end_row: int
    #: Ordinal of the first one in the earlier plan.
    first_row_before: int
    file_index: int
    file_index_before: int


def same_rows(
    files: Iterable[InputFile], num_rows: int, before: Iterable[InputFile], num_rows_before: int
) -> list[SameRows]:
    """The rows of unchanged files, in order of ``files``.

    Args:
        files: of the plan, in order.
        num_rows: of the plan; fewer than those of its files where a limit cuts them.
        before: the files of the earlier plan, in order.
        num_rows_before: of the earlier plan.
    """
    known = {}
    for file, first_row, end_row in _with_rows(before, num_rows_before):
        known[_identity(file)] = (first_row, end_row, file.index)
    found = []
    for file, first_row, end_row in _with_rows(files, num_rows):
        if (there := known.get(_identity(file))) is None:
            continue
        first_before, end_before, index_before = there
        # Of a file that a limit cut, as many rows as both plans have.
        num_same = min(end_row - first_row, end_before - first_before)
        if num_same:
            found.append(
                SameRows(first_row, first_row + num_same, first_before, file.index, index_before)
            )
    return found


def is_same_shard(shard: Shard, same: list[SameRows], before: Plan) -> bool:
    """Whether the earlier plan has the very same shard, so that a copy of its files is right.

    Args:
        shard: of the plan.
        same: what is the same of the shard, cut to it.
        before: the earlier plan.
    """
    if not shard.num_rows or shard.index >= before.num_shards:
        return False
    there = before.shard(shard.index)
    return (
        (there.first_row, there.end_row) == (shard.first_row, shard.end_row)
        and sum(one.end_row - one.first_row for one in same) == shard.num_rows
        and all(
            one.first_row == one.first_row_before and one.file_index == one.file_index_before
            for one in same
        )
    )


def cut_to(same: Iterable[SameRows], shard: Shard) -> list[SameRows]:
    """What lies in a shard."""
    cut = []
    for one in same:
        first, end = max(one.first_row, shard.first_row), min(one.end_row, shard.end_row)
        if first < end:
            before = one.first_row_before + first - one.first_row
            cut.append(SameRows(first, end, before, one.file_index, one.file_index_before))
    return cut


def gaps(same: Iterable[SameRows], shard: Shard) -> list[tuple[int, int]]:
    """The row ranges of a shard that are not the same."""
    found = []
    row = shard.first_row
    for one in same:
        if one.first_row > row:
            found.append((row, one.first_row))
        row = one.end_row
    if row < shard.end_row:
        found.append((row, shard.end_row))
    return found


def _identity(file: InputFile) -> tuple[str, str, str, int]:
    return file.path, file.format, file.windows_sha256, file.num_rows


def _with_rows(files: Iterable[InputFile], num_rows: int) -> Iterator[tuple[InputFile, int, int]]:
    """Each file with its row ordinals, as far as the plan goes."""
    first_row = 0
    for file in files:
        end_row = first_row + file.num_rows
        yield file, min(first_row, num_rows), min(end_row, num_rows)
        first_row = end_row
