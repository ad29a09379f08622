"""Which rows of a shard are missing, and which do not belong to it, as far as can be known.

The manifest alone says how many rows and lines an input has, not which lines are blank: of an input
without blank lines every row is known by it, of others the sealed copies under ``_run/`` tell.
Without them the lines that a missing row may be on are named, never one as if it were known.
Does not: read anything.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

RowKey = tuple[int, int]

#: Ranges of lines that are named of one input.
_MAX_RANGES = 10


class RowsOfInputs:
    """Which (input, line) each row ordinal is, as far as the manifest alone tells.

    In a file without blank lines the n-th row is line n. With blank lines only bounds are known:
    a row's line is at least its number, and no more than that plus the number of blank lines.
    """

    def __init__(self, inputs: list[dict[str, Any]]) -> None:
        self._inputs = inputs
        self._first_rows = [0, *accumulate(int(entry["rows"]) for entry in inputs)]

    def place(self, row: int) -> tuple[int, int, int]:
        """(file index, lowest line, highest line) of a row ordinal."""
        at = bisect_right(self._first_rows, row) - 1
        entry = self._inputs[at]
        number = row - self._first_rows[at] + 1
        return int(entry["index"]), number, number + int(entry["lines"]) - int(entry["rows"])


@dataclass
class _Walk:
    """What is found of the wanted rows of a shard, side by side."""

    missing: list[RowKey]
    strangers: list[RowKey]
    #: By input with blank lines: how many of its rows are missing.
    unsure: dict[int, int]
    #: By input: the lowest and the highest line that a row of this shard can have.
    lines: dict[int, tuple[int, int]]

    @property
    def is_sound(self) -> bool:
        return not (self.missing or self.strangers or self.unsure)


class ShardRows:
    """The rows ``[first_row, first_row + num_rows)`` of all inputs together."""

    def __init__(self, rows: RowsOfInputs, first_row: int, num_rows: int) -> None:
        self._rows = rows
        self._ordinals = range(first_row, first_row + num_rows)

    def has_each_once(self, keys: Sequence[RowKey]) -> bool:
        """Whether ascending keys can be the rows of this shard, and no others."""
        return self._walk(keys).is_sound

    def differences(self, keys: Sequence[RowKey], known: Sequence[RowKey] | None) -> Iterator[str]:
        """What is missing and what does not belong, one sentence each.

        Args:
            keys: what is there, ascending and each once.
            known: what is to be there; None where nothing but the manifest tells.
        """
        walk = self._walk(keys)
        if known is not None:
            walk = _Walk(sorted(set(known) - set(keys)), sorted(set(keys) - set(known)), {}, {})
        differing = [(key, "is missing") for key in walk.missing]
        differing += [(key, "does not belong to this shard") for key in walk.strangers]
        for key, what in sorted(differing):
            yield f"row {list(key)} {what}"
        for file_index, num_missing in walk.unsure.items():
            lines = _absent_lines(keys, file_index, *walk.lines[file_index])
            rows, one_of = (
                ("a row", "one") if num_missing == 1 else (f"{num_missing:,} rows", "some")
            )
            are = "is" if num_missing == 1 else "are"
            yield f"{rows} of input {file_index} {are} missing: {one_of} of the lines {lines}"

    def _walk(self, keys: Sequence[RowKey]) -> _Walk:
        walk = _Walk([], [], {}, {})
        at = 0
        for row in self._ordinals:
            file_index, lowest, highest = self._rows.place(row)
            walk.lines[file_index] = (walk.lines.get(file_index, (lowest,))[0], highest)
            while at < len(keys) and keys[at] < (file_index, lowest):
                walk.strangers.append(keys[at])
                at += 1
            if at < len(keys) and keys[at] <= (file_index, highest):
                at += 1
            elif lowest == highest:
                walk.missing.append((file_index, lowest))
            else:
                walk.unsure[file_index] = walk.unsure.get(file_index, 0) + 1
        walk.strangers += keys[at:]
        return walk


def _absent_lines(keys: Sequence[RowKey], file_index: int, lowest: int, highest: int) -> str:
    """The lines of a file from lowest to highest that no key has: ``2, 6 to 7``."""
    ranges = []
    begin = bisect_left(keys, (file_index, lowest))
    end = bisect_right(keys, (file_index, highest))
    line = lowest
    for _, present in [*keys[begin:end], (file_index, highest + 1)]:
        if line < present:
            ranges.append(f"{line}" if line == present - 1 else f"{line} to {present - 1}")
        line = present + 1
    more = len(ranges) - _MAX_RANGES
    return ", ".join(ranges[:_MAX_RANGES]) + (f" and {more:,} ranges more" if more > 0 else "")
