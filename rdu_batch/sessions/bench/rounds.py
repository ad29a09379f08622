"""Rounds and what is made of them: medians, quartiles, ratios between neighbours. No torch in here.

Promises: a ratio is one of numbers from the same round. Does not: measure.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Rest after work of torch's own threads, before decode is timed; see the package.
SETTLE_S = 0.015


@dataclass(frozen=True)
class Quartiles:
    """The median of some numbers, and what half of them lie between."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Quartiles:
        """Quartiles of at least one number.

        Raises:
            ValueError: no number.
        """
        numbers = list(values)
        if len(numbers) == 1:
            return cls(numbers[0], numbers[0], numbers[0])
        if not numbers:
            raise ValueError("quartiles of no numbers")
        low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
        return cls(low, median, high)


@dataclass(frozen=True)
class ReadRates:
    """How fast memory was read just now, in bytes/s; None where a way does not apply."""

    torch_sum: float
    #: The artifact's own reading loop over anonymous memory.
    own: float | None = None
    #: The same over the mapped weights file.
    mapped: float | None = None
    #: The same over anonymous memory in large pages. Not among what ``best`` chooses from.
    large_pages: float | None = None

    @property
    def best(self) -> float:
        """The greatest over ordinary pages: each is a rate that the memory did reach."""
        return max(rate for rate in (self.torch_sum, self.own, self.mapped) if rate is not None)


@dataclass(frozen=True)
class DecodeRound:
    """Some decoded tokens between two readings of memory, and what was compared with them."""

    before: ReadRates
    after: ReadRates
    tokens_per_s: float
    #: Weights, and the keys and values attended to on average in this round.
    bytes_per_token: float
    #: ``transformers.generate`` in the same round.
    eager_tokens_per_s: float | None = None
    #: The same model without some patches, in the same round.
    variant_tokens_per_s: float | None = None

    @property
    def read_bytes_per_s(self) -> float:
        """Read bandwidth around this round: the mean of its two neighbours."""
        return (self.before.best + self.after.best) / 2

    @property
    def roofline_fraction(self) -> float:
        """Bytes this round's tokens had to read, of those that could be read meanwhile."""
        return self.bytes_per_token * self.tokens_per_s / self.read_bytes_per_s

    @property
    def large_page_bytes_per_s(self) -> float | None:
        """The same for memory in large pages; None where it was not read."""
        if self.before.large_pages is None or self.after.large_pages is None:
            return None
        return (self.before.large_pages + self.after.large_pages) / 2


@dataclass(frozen=True)
class PrefillRound:
    """One prefill between two matrix products."""

    prefill_s: float
    matmul_before_flop_per_s: float
    matmul_after_flop_per_s: float
    #: From the call of ``transformers.generate`` to its first token, in the same round.
    eager_first_token_s: float | None = None

    @property
    def matmul_flop_per_s(self) -> float:
        """Rate of the matrix products around this prefill."""
        return (self.matmul_before_flop_per_s + self.matmul_after_flop_per_s) / 2

    def matmul_fraction(self, flop: float) -> float:
        """A prefill of ``flop`` operations, of what the matrix product did meanwhile."""
        return flop / self.prefill_s / self.matmul_flop_per_s


def ratios(numerators: Iterable[float | None], denominators: Iterable[float | None]) -> Quartiles:
    """Quartiles of the ratios of pairs; a pair must be whole.

    Raises:
        ValueError: a number is missing, or there is no pair.
    """
    found = []
    for numerator, denominator in zip(numerators, denominators, strict=True):
        if numerator is None or denominator is None:
            raise ValueError("a round without one of the two numbers of its ratio")
        found.append(numerator / denominator)
    return Quartiles.of(found)


def total_rate(stamps: Sequence[Sequence[float]]) -> float:
    """Tokens/s of several sessions together, from the times at which each had a token.

    Only while all of them ran: from the last one's first token to the first one's last. Rows too
    short to overlap for two tokens count with each session's own rate.

    Args:
        stamps: of each session, at least two times that grow, in seconds of one clock.
    """
    begin = max(times[0] for times in stamps)
    end = min(times[-1] for times in stamps)
    within = [[time_s for time_s in times if begin <= time_s <= end] for times in stamps]
    counted = within if all(len(times) > 1 for times in within) else stamps
    return sum((len(times) - 1) / (times[-1] - times[0]) for times in counted)
