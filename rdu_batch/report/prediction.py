"""What a run will come to, from a sample of its rows and a measured speed: arithmetic alone.

Totals are the sample's mean times the number of rows, give or take 1.96 standard errors (95 %, less
where the sample is much of the whole; exact where it is all of it). How many tokens a row generates
is not known before it is run: low is the least it may, high the most. Times take low tokens at high
speed, and high tokens at low speed; a run that ends rows early is near the low end.
Does not: read rows or files, or know a clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rdu_batch.job.speed import Interval, Speed
from rdu_batch.report.rendered_rows import escaped
from rdu_batch.report.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Standard errors on each side of a mean: 95 % of a normal distribution.
_NUM_ERRORS: Final = 1.96
#: Until a worker opens its session: its process and its imports, from memory or from a cold disk,
#: and the cluster's own start where it is for this run alone.
PROCESS_START_S: Final = Interval(1.0, 20.0)
_S_PER_HOUR: Final = 3600


class RowTokens(NamedTuple):
    """What one row costs; a row that ends as a dead letter costs nothing."""

    prompt: int
    #: Of all its samples together.
    least_generated: int
    most_generated: int
    num_samples: int = 1


@dataclass(frozen=True)
class TokenTotals:
    """Tokens of all rows of a job."""

    num_rows: int
    num_sampled: int
    prompt: Interval
    #: Prompt tokens, once for each sample of a row.
    prefilled: Interval
    generated: Interval
    #: Generated tokens after the first of each sample, which prefill gives.
    decoded: Interval


def sum_of_totals(parts: Sequence[TokenTotals]) -> TokenTotals:
    """Of several kinds of rows together; each may be at its low or at its high end."""

    def added(intervals: Iterable[Interval]) -> Interval:
        lows, highs = zip(*intervals, strict=True)
        return Interval(sum(lows), sum(highs))

    return TokenTotals(
        num_rows=sum(part.num_rows for part in parts),
        num_sampled=sum(part.num_sampled for part in parts),
        prompt=added(part.prompt for part in parts),
        prefilled=added(part.prefilled for part in parts),
        generated=added(part.generated for part in parts),
        decoded=added(part.decoded for part in parts),
    )


@dataclass(frozen=True)
class RunForecast:
    """A whole run on so many workers."""

    num_workers: int
    wall_s: Interval
    worker_hours: Interval

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "workers": self.num_workers,
            "wall_s": [round(one, 1) for one in self.wall_s],
            "worker_hours": [round(one, 4) for one in self.worker_hours],
        }


def total_of(values: Sequence[float], num_rows: int) -> Interval:
    """The sum over ``num_rows`` rows of something that a random sample of them has ``values`` of.

    One value of several rows says little: it is taken to be off by as much as itself.
    """
    if not values or not num_rows:
        return Interval(0.0, 0.0)
    mean, size = fmean(values), len(values)
    if size >= num_rows:
        return Interval(mean * num_rows, mean * num_rows)
    deviation = stdev(values) if size > 1 else mean
    left_out = math.sqrt((num_rows - size) / (num_rows - 1))
    error = _NUM_ERRORS * deviation / math.sqrt(size) * left_out * num_rows
    return Interval(max(0.0, mean * num_rows - error), mean * num_rows + error)


def token_totals(sample: Sequence[RowTokens], num_rows: int) -> TokenTotals:
    """Tokens of all rows, from those of a random sample."""

    def between(least: Sequence[int], most: Sequence[int]) -> Interval:
        return Interval(total_of(least, num_rows).low, total_of(most, num_rows).high)

    least = [row.least_generated for row in sample]
    most = [row.most_generated for row in sample]
    firsts = [min(row.num_samples, row.most_generated) for row in sample]
    return TokenTotals(
        num_rows=num_rows,
        num_sampled=len(sample),
        prompt=total_of([row.prompt for row in sample], num_rows),
        prefilled=total_of([row.prompt * row.num_samples for row in sample], num_rows),
        generated=between(least, most),
        decoded=between(
            [max(0, one - first) for one, first in zip(least, firsts, strict=True)],
            [one - first for one, first in zip(most, firsts, strict=True)],
        ),
    )


def forecast(totals: TokenTotals, speed: Speed, num_workers: int) -> RunForecast:
    """How long a run takes on so many workers of the machine that the speed is of.

    Rows are shared out evenly; each worker starts at once. What storing costs, and a cluster that
    has no room yet, are left out.
    """
    share = math.ceil(totals.num_rows / num_workers) / totals.num_rows if totals.num_rows else 0.0
    prefill, decode = speed.prefill_tokens_per_s, speed.decode_tokens_per_s
    wall_s = Interval(
        PROCESS_START_S.low
        + speed.open_s.low
        + share * (totals.prefilled.low / prefill.high + totals.decoded.low / decode.high),
        PROCESS_START_S.high
        + speed.open_s.high
        + share * (totals.prefilled.high / prefill.low + totals.decoded.high / decode.low),
    )
    hours = Interval(*(num_workers * one / _S_PER_HOUR for one in wall_s))
    return RunForecast(num_workers, wall_s, hours)


def worker_counts(most: int) -> list[int]:
    """1, 2, 4, 8 ... as far as ``most``, and ``most`` itself."""
    counts = [1]
    while counts[-1] * 2 < most:
        counts.append(counts[-1] * 2)
    return counts if most <= 1 else [*counts, most]


@dataclass(frozen=True)
class DeadSample:
    """Sampled rows that will be dead letters of one reason."""

    reason: str
    num_rows: int
    #: Place and detail of the first of them.
    path: str
    line: int
    detail: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "rows": self.num_rows,
            "example": {"path": self.path, "line": self.line, "detail": self.detail},
        }


@dataclass(frozen=True)
class Prediction:
    """What ``plan`` says of a run."""

    #: None where no token counts are known; ``note`` says why.
    totals: TokenTotals | None
    #: None where no speed is known; ``note`` says why.
    speed: Speed | None
    runs: tuple[RunForecast, ...]
    #: Sampled rows that will be dead letters, the most frequent reason first.
    dead: tuple[DeadSample, ...] = ()
    note: str | None = None
    #: Rows that were looked at, whether their tokens are known or not.
    num_sampled: int = 0
    #: Whether a run has so many rows that it gives up where most of them are dead letters.
    may_stop_early: bool = False

    @property
    def num_dead(self) -> int:
        """Sampled rows that will be dead letters."""
        return sum(one.num_rows for one in self.dead)

    @property
    def is_mostly_dead(self) -> bool:
        """Whether more than half of the sampled rows will be dead letters."""
        return self.num_dead * 2 > self.num_sampled

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; unknown ones are null."""
        totals = self.totals
        return {
            "sampled_rows": totals.num_sampled if totals else self.num_sampled,
            "sampled_dead_rows": self.num_dead,
            "sampled_dead_reasons": {one.reason: one.to_json() for one in self.dead},
            "mostly_dead": self.is_mostly_dead,
            "prompt_tokens": _whole(totals.prompt) if totals else None,
            "generated_tokens": _whole(totals.generated) if totals else None,
            "speed": self.speed.to_json() if self.speed else None,
            "runs": [one.to_json() for one in self.runs],
            "note": self.note,
        }

    def to_lines(self) -> list[str]:
        """A small table for people."""
        lines = ["prediction"]
        if self.totals is not None:
            of_all = f"from {self.totals.num_sampled:,} sampled, for {self.totals.num_rows:,} rows"
            lines += [
                f"  prompt tokens     {_shown(self.totals.prompt)}  ({of_all})",
                f"  generated tokens  {_shown(self.totals.generated)}  (the least and the most)",
            ]
        lines += self._dead_lines()
        if self.runs and self.speed is not None:
            lines.append("  workers            wall time        worker-hours")
            lines += [
                f"  {one.num_workers:>7,}  {span(one.wall_s):>18}  {_hours(one.worker_hours):>18}"
                for one in self.runs
            ]
            lines.append(
                f"  as fast as measured by compile: {self.speed.machine}, "
                f"{counted(self.speed.threads, 'thread')} a session"
            )
        if self.note:
            lines.append(f"  {self.note}")
        return lines

    def _dead_lines(self) -> list[str]:
        if not self.dead:
            return []
        sampled = counted(self.num_sampled, "sampled row")
        lines = [f"  dead letters      {self.num_dead:,} of {sampled}"]
        lines += [
            escaped(
                f"    {one.reason} {one.num_rows:,}, such as {one.path}:{one.line}: {one.detail}"
            )
            for one in self.dead
        ]
        if self.is_mostly_dead:
            end = (
                "a run stops early (exit 10) once most of its rows are"
                if self.may_stop_early
                else "a run ends with exit 5 where limits.max_dead_rows is lower"
            )
            lines.append(f"  most rows would be dead letters: {end}; see to these reasons first")
        return lines


def span(seconds: Interval) -> str:
    """``41-55 s``, or minutes or hours where that is more readable; one number where alike."""
    sizes = {"h": 3600, "min": 60, "s": 1}
    unit, size_s = next(
        (one for one in sizes.items() if seconds.high >= 3 * one[1]), ("s", sizes["s"])
    )
    digits = 1 if seconds.high / size_s < 10 else 0
    low, high = (f"{one / size_s:,.{digits}f}" for one in seconds)
    return f"{low} {unit}" if low == high else f"{low}-{high} {unit}"


def _hours(hours: Interval) -> str:
    low, high = (f"{one:,.{3 if hours.high < 1 else 1}f}" for one in hours)
    return low if low == high else f"{low}-{high}"


def _whole(interval: Interval) -> list[int]:
    return [math.floor(interval.low), math.ceil(interval.high)]


def _shown(interval: Interval) -> str:
    low, high = _whole(interval)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"
