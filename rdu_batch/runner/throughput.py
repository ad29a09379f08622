"""How much was done when, in few enough numbers to keep with a run's result; pure.

A worker's answer tells of all that it did since its task began, so its rows and tokens are spread
evenly over that time. Bins double their width when a run outgrows them: an hour's run and a month's
take the same space, and the sums stay those of the answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MAX_BINS: Final = 120
#: What is left of a bin's count for people and programs.
_DIGITS: Final = 3


@dataclass
class Throughput:
    """Rows and generated tokens by the time since the driver's loop began."""

    bin_s: float = 1.0
    rows: list[float] = field(default_factory=list)
    generated_tokens: list[float] = field(default_factory=list)
    #: When the last answer came: the last bin is full only as far as that.
    end_s: float = 0.0

    def add(self, start_s: float, end_s: float, *, rows: int, generated_tokens: int) -> None:
        """Count what was done from ``start_s`` to ``end_s``, both since the beginning."""
        end_s = max(0.0, end_s)
        start_s = min(max(0.0, start_s), end_s)
        self.end_s = max(self.end_s, end_s)
        while end_s >= MAX_BINS * self.bin_s:
            self._widen()
        first, last = int(start_s / self.bin_s), int(end_s / self.bin_s)
        missing = last + 1 - len(self.rows)
        self.rows += [0.0] * missing
        self.generated_tokens += [0.0] * missing
        for at in range(first, last + 1):
            share = self._share(at, start_s, end_s)
            self.rows[at] += rows * share
            self.generated_tokens[at] += generated_tokens * share

    def to_json(self) -> dict[str, Any]:
        """Each bin's counts, the first bin first; a number of bins that ``MAX_BINS`` bounds."""
        return {
            "bin_s": self.bin_s,
            "end_s": round(self.end_s, _DIGITS),
            "rows": [round(one, _DIGITS) for one in self.rows],
            "generated_tokens": [round(one, _DIGITS) for one in self.generated_tokens],
        }

    def _share(self, at: int, start_s: float, end_s: float) -> float:
        if end_s <= start_s:
            return 1.0
        begun_s, ended_s = at * self.bin_s, (at + 1) * self.bin_s
        return max(0.0, min(end_s, ended_s) - max(start_s, begun_s)) / (end_s - start_s)

    def _widen(self) -> None:
        self.bin_s *= 2
        self.rows = _by_two(self.rows)
        self.generated_tokens = _by_two(self.generated_tokens)


def _by_two(counts: list[float]) -> list[float]:
    return [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
