"""The figures of the report page as inline SVG; pure, from numbers alone.

Every bar has a title with its numbers, and every text comes escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from rdu_batch.report.wording import clock

_WIDTH: Final = 360
_HEIGHT: Final = 150
_FLOOR: Final = 125
_MAX_BINS: Final = 24
#: Of a figure with a bar a worker.
_LABEL_WIDTH: Final = 80
_BAR_HEIGHT: Final = 16


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
    """How often which number of tokens occurs."""
    bins = bins_of(values)
    if not bins:
        return ""
    bars = []
    for first, last, count in bins:
        span = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        bars.append((float(count), f"{span} tokens: {count:,}"))
    low, high = f"{min(values):,}", f"{max(values):,} tokens"
    most = f"most in a bar: {max(count for *_, count in bins):,}"
    return _columns(bars, title, (low, high), most, f"from {low} to {high}")


def rates(counts: Sequence[float], bin_s: float, title: str, unit: str) -> str:
    """A rate over the time of a run, from counts in bins of so many seconds."""
    if len(counts) < 2 or not any(counts):
        return ""
    bars = [
        (
            one / bin_s,
            f"{clock(at * bin_s)} to {clock((at + 1) * bin_s)}: {one / bin_s:,.1f} {unit}",
        )
        for at, one in enumerate(counts)
    ]
    most = f"{max(counts) / bin_s:,.1f} {unit}"
    end = clock(len(counts) * bin_s)
    return _columns(bars, title, ("0:00", end), f"most: {most}", f"in {end} at most {most}")


def worker_bars(seconds: Sequence[tuple[str, Mapping[str, float]]], classes: Sequence[str]) -> str:
    """A bar a worker, from its name and its seconds by class; class N has the style ``kN``."""
    longest = max((sum(one.values()) for _, one in seconds), default=0.0)
    if not longest:
        return ""
    scale, lines = (_WIDTH - _LABEL_WIDTH) / longest, []
    for at, (name, of_worker) in enumerate(seconds):
        top, left = at * (_BAR_HEIGHT + 6), float(_LABEL_WIDTH)
        lines.append(f'<text x="0" y="{top + 12}">{escape(name)}</text>')
        for kind, one in enumerate(classes):
            width = of_worker.get(one, 0.0) * scale
            told = f"{escape(name)}, {escape(one)}: {of_worker.get(one, 0.0):,.1f} s"
            lines.append(
                f'<rect class="k{kind}" x="{left:.1f}" y="{top}" width="{width:.1f}" '
                f'height="{_BAR_HEIGHT}"><title>{told}</title></rect>'
            )
            left += width
    height = len(seconds) * (_BAR_HEIGHT + 6)
    return (
        f'<figure class="wide"><svg viewBox="0 0 {_WIDTH} {height}" role="img">'
        f"<title>Seconds of each worker by what it did; the longest lived {longest:,.1f} s</title>"
        f"{''.join(lines)}</svg></figure>"
    )


def _columns(
    bars: Sequence[tuple[float, str]],
    title: str,
    ends: tuple[str, str],
    most: str,
    spoken: str,
) -> str:
    """Columns over a floor: each a height and its title."""
    highest, step = max(value for value, _ in bars), _WIDTH / len(bars)
    gap = 1 if step > 6 else 0
    rects = [
        f'<rect x="{at * step + gap / 2:.2f}" y="{_FLOOR - 100 * value / highest:.1f}" '
        f'width="{min(step - gap, 60):.2f}" height="{100 * value / highest:.1f}">'
        f"<title>{escape(told)}</title></rect>"
        for at, (value, told) in enumerate(bars)
    ]
    name = escape(title)
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{name}: {escape(spoken)}</title>'
        f"{''.join(rects)}"
        f'<line x1="0" y1="{_FLOOR}" x2="{_WIDTH}" y2="{_FLOOR}"></line>'
        f'<text x="0" y="142">{escape(ends[0])}</text>'
        f'<text x="{_WIDTH}" y="142" text-anchor="end">{escape(ends[1])}</text>'
        f'<text x="{_WIDTH}" y="12" text-anchor="end">{escape(most)}</text>'
        "</svg></figure>"
    )
