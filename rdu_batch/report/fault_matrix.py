"""A matrix of faults against promises as aligned lines; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def matrix_lines(
    corner: str, columns: Sequence[str], cells: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """A heading, then one line a row: its name, and a cell for each column, right-aligned."""
    name_width = max(len(name) for name in (corner, *cells))
    widths = [
        max([len(column), *(len(row[at]) for row in cells.values())])
        for at, column in enumerate(columns)
    ]
    for name, row in ((corner, columns), *cells.items()):
        aligned = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  ".join([f"{name:<{name_width}}", *aligned])
