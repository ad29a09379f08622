"""The figures of the report page as inline SVG: histograms; pure, from numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

_WIDTH: Final = 360
_HEIGHT: Final = 150
_FLOOR: Final = 125
_MAX_BINS: Final = 24


def bins_of(values: Sequence[int]) -> list[tuple[int, int, int]]:
    """Equal bins as (first, last, count): whole numbers, every value in exactly one bin."""
    if not values:
        return []
    low, high = min(values), max(values)
    width = -(-(high - low + 1) // _MAX_BINS)
    counts = [0] * ((high - low) // width + 1)
    for value in values:
        counts[(value - low) // width] += 1
    return [
        (low + at * width, low + (at + 1) * width - 1, count) for at, count in enumerate(counts)
    ]


def histogram(values: Sequence[int], title: str) -> str:
    """One figure; each bar has a title with its numbers."""
    bins = bins_of(values)
    if not bins:
        return ""
    most, step = max(count for *_, count in bins), _WIDTH / len(bins)
    bars = []
    for at, (first, last, count) in enumerate(bins):
        height = 100 * count / most
        span = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        bars.append(
            f'<rect x="{at * step + 0.5:.1f}" y="{_FLOOR - height:.1f}" '
            f'width="{min(step - 1, 60):.1f}" height="{height:.1f}">'
            f"<title>{span} tokens: {count:,}</title></rect>"
        )
    name = escape(title)
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{name}: from {min(values):,} '
        f"to {max(values):,} tokens</title>{''.join(bars)}"
        f'<line x1="0" y1="{_FLOOR}" x2="{_WIDTH}" y2="{_FLOOR}"></line>'
        f'<text x="0" y="142">{min(values):,}</text>'
        f'<text x="{_WIDTH}" y="142" text-anchor="end">{max(values):,} tokens</text>'
        f'<text x="{_WIDTH}" y="12" text-anchor="end">most in a bar: {most:,}</text>'
        "</svg></figure>"
    )
