"""The figures of the report page as inline SVG; pure, from numbers alone.

Every bar has a title with its numbers, and every text comes escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from rdu_batch.report.wording import clock

_WIDTH: Final = 360
_HEIGHT: Final = 150
_FLOOR: Final = 125
_MAX_BINS: Final = 24
#: Of a bin of time that is no bin of its own.
_LEAST_OF_A_BIN: Final = 0.25
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
        bars.append(_Bar(float(count), f"{span} tokens: {count:,}"))
    low, high = f"{min(values):,}", f"{max(values):,} tokens"
    most = f"most in a bar: {max(count for *_, count in bins):,}"
    return _columns(bars, title, (low, high), most, f"from {low} to {high}")


def rates(
    counts: Sequence[float], bin_s: float, title: str, unit: str, end_s: float | None = None
) -> str:
    """A rate over the time of a run, from counts in bins of so many seconds.

    ``end_s`` is where the last bin ends; None where that is not known, so that it counts as whole.
    """
    if len(counts) < 2 or not any(counts):
        return ""
    bins = _timed(counts, bin_s, end_s)
    bars = [
        _Bar(
            count / (until_s - from_s),
            f"{clock(from_s)} to {clock(until_s)}: {count / (until_s - from_s):,.1f} {unit}",
            width=until_s - from_s,
        )
        for from_s, until_s, count in bins
    ]
    highest, end = max(one.value for one in bars), clock(bins[-1][1])
    most = f"{highest:,.1f} {unit}"
    return _columns(bars, title, ("0:00", end), f"most: {most}", f"in {end} at most {most}")


def _timed(
    counts: Sequence[float], bin_s: float, end_s: float | None
) -> list[tuple[float, float, float]]:
    """Bins as (from, until, count) in seconds; a sliver of a last bin is one with that before."""
    bins = [(at * bin_s, (at + 1) * bin_s, count) for at, count in enumerate(counts)]
    from_s, until_s, count = bins.pop()
    until_s = until_s if end_s is None else min(max(end_s, from_s), until_s)
    if until_s - from_s < _LEAST_OF_A_BIN * bin_s:
        # What ended in so short a time says nothing of a rate.
        from_s, _, before = bins.pop()
        count += before
    return [*bins, (from_s, until_s, count)]


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


@dataclass(frozen=True)
class _Bar:
    """A column: its height, what is said of it, and its share of the width beside the others'."""

    value: float
    told: str
    width: float = 1.0


def _columns(
    bars: Sequence[_Bar],
    title: str,
    ends: tuple[str, str],
    most: str,
    spoken: str,
) -> str:
    """Columns over a floor, which they fill together."""
    highest, per_width = max(one.value for one in bars), _WIDTH / sum(one.width for one in bars)
    rects, left = [], 0.0
    for one in bars:
        step, height = one.width * per_width, 100 * one.value / highest
        gap = 1 if step > 6 else 0
        rects.append(
            f'<rect x="{left + gap / 2:.2f}" y="{_FLOOR - height:.1f}" '
            f'width="{step - gap:.2f}" height="{height:.1f}">'
            f"<title>{escape(one.told)}</title></rect>"
        )
        left += step
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
