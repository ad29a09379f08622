"""What a bench found: a table for people, one JSON object for programs. Pure, no torch in here.

Promises: every key is there whatever was measured; null where it was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdu_batch.sessions.bench.rounds import Quartiles, ratios

if TYPE_CHECKING:
    from rdu_batch.sessions.artifact import Artifact
    from rdu_batch.sessions.bench.rounds import DecodeRound, PrefillRound
    from rdu_batch.sessions.bench.settings import BenchSettings
    from rdu_batch.sessions.bench.side_by_side import Opening, SideBySide

_GIGA = 1e9
#: Weights below this may stay in a cache, where the memory's speed is no limit.
_CACHED_BYTES = 64 << 20


@dataclass(frozen=True)
class BenchReport:
    """All that was measured."""

    settings: BenchSettings
    artifact: Artifact
    weight_bytes: int
    prefill_flop: int
    #: Tokens that a prefill computes, padding included.
    computed_tokens: int
    opening: Opening
    decode: list[DecodeRound]
    prefill: list[PrefillRound]
    eager_open_s: float | None = None
    side_by_side: SideBySide | None = None

    def to_json(self) -> dict[str, Any]:
        """The last line of standard output."""
        fraction = Quartiles.of(one.roofline_fraction for one in self.decode)
        prefill_s = Quartiles.of(one.prefill_s for one in self.prefill)
        side, large_pages = self.side_by_side, self._large_page_fraction()
        return {
            "artifact": self.artifact.url,
            "digest": self.artifact.digest,
            "model_family": self.artifact.model_family,
            "dtype": self.artifact.dtype,
            "weights": self.artifact.weights,
            "threads": self.settings.threads,
            "prompt_tokens": self.settings.prompt_tokens,
            "new_tokens": self.settings.new_tokens,
            "rounds": len(self.decode),
            "decode_tokens_per_s": _median(one.tokens_per_s for one in self.decode),
            "read_bytes_per_s": _median(one.read_bytes_per_s for one in self.decode),
            "bytes_per_token": sum(one.bytes_per_token for one in self.decode) / len(self.decode),
            "roofline_fraction": fraction.median,
            "roofline_fraction_quartiles": [fraction.low, fraction.high],
            "large_page_read_bytes_per_s": self._large_page_rate(),
            "large_page_fraction": None if large_pages is None else large_pages.median,
            "prefill_tokens_per_s": self.settings.prompt_tokens / prefill_s.median,
            "matmul_flop_per_s": _median(one.matmul_flop_per_s for one in self.prefill),
            "prefill_matmul_fraction": self._matmul_fraction().median,
            "import_s": self.opening.import_s,
            "open_s": self.opening.open_s,
            "first_token_s": prefill_s.median,
            "eager_decode_tokens_per_s": self._eager_tokens_per_s(),
            "eager_first_token_s": self._eager_first_token_s(),
            "speedup": self._speedup().median if self._has_eager else None,
            "without": list(self.settings.without),
            "without_decode_tokens_per_s": self._variant_tokens_per_s(),
            "without_speedup": self._bought().median if self.settings.without else None,
            "sessions": side.sessions if side else None,
            "sessions_tokens_per_s": side.tokens_per_s.median if side else None,
            "sessions_roofline_fraction": side.roofline_fraction.median if side else None,
            "private_bytes_per_session": side.private_bytes if side else None,
            "shared_weights_bytes": side.shared_weights_bytes if side else None,
            "exit": 0,
        }

    def to_lines(self) -> list[str]:
        """The table; a number, then what half of the rounds lie between, where there are rounds."""
        artifact, settings = self.artifact, self.settings
        weights = "" if artifact.weights == "plain" else f" with {artifact.weights} weights"
        title = (
            f"{artifact.url}: {artifact.model_family}, {artifact.dtype}{weights}, "
            f"{_counted(settings.threads, 'thread')}, "
            f"{_counted(settings.prompt_tokens, 'prompt token')}, "
            f"{settings.new_tokens} new ones; "
            f"medians of {_counted(len(self.decode), 'round')} (quartiles)"
        )
        lines = [
            title,
            *self._decode_lines(),
            *self._prefill_lines(),
            *self._opening_lines(),
        ]
        if self._has_eager:
            lines += self._eager_lines()
        if self.settings.without:
            lines += self._variant_lines()
        if self.side_by_side is not None:
            lines += _side_by_side_lines(self.side_by_side)
        return lines

    @property
    def _has_eager(self) -> bool:
        return self.settings.against_eager

    def _speedup(self) -> Quartiles:
        return ratios(
            [one.tokens_per_s for one in self.decode],
            [one.eager_tokens_per_s for one in self.decode],
        )

    def _bought(self) -> Quartiles:
        return ratios(
            [one.tokens_per_s for one in self.decode],
            [one.variant_tokens_per_s for one in self.decode],
        )

    def _matmul_fraction(self) -> Quartiles:
        return Quartiles.of(one.matmul_fraction(self.prefill_flop) for one in self.prefill)

    def _large_page_rate(self) -> float | None:
        found = [one.large_page_bytes_per_s for one in self.decode if one.large_page_bytes_per_s]
        return _median(found) if found else None

    def _large_page_fraction(self) -> Quartiles | None:
        found = [
            one.bytes_per_token * one.tokens_per_s / one.large_page_bytes_per_s
            for one in self.decode
            if one.large_page_bytes_per_s
        ]
        return Quartiles.of(found) if found else None

    def _eager_tokens_per_s(self) -> float | None:
        return _median(one.eager_tokens_per_s for one in self.decode) if self._has_eager else None

    def _eager_first_token_s(self) -> float | None:
        return _median(one.eager_first_token_s for one in self.prefill) if self._has_eager else None

    def _variant_tokens_per_s(self) -> float | None:
        if not self.settings.without:
            return None
        return _median(one.variant_tokens_per_s for one in self.decode)

    def _decode_lines(self) -> list[str]:
        rounds = self.decode
        mean_bytes = sum(one.bytes_per_token for one in rounds) / len(rounds)
        readings = [reading for one in rounds for reading in (one.before, one.after)]
        ways = {
            "own loop": [one.own for one in readings if one.own],
            "mapped weights": [one.mapped for one in readings if one.mapped],
            "torch.sum": [one.torch_sum for one in readings],
        }
        said = [f"{way} {_median(found) / _GIGA:.1f}" for way, found in ways.items() if found]
        lines = [
            _line("decode", Quartiles.of(one.tokens_per_s for one in rounds), "tokens/s", 1),
            _text(
                "  bytes a token",
                f"{mean_bytes / _GIGA:.4g} GB: weights {self.weight_bytes / _GIGA:.4g}, "
                f"keys and values {(mean_bytes - self.weight_bytes) / _GIGA:.2g}",
            ),
            _line(
                "  read bandwidth",
                Quartiles.of(one.read_bytes_per_s / _GIGA for one in rounds),
                f"GB/s, the greatest of: {', '.join(said)}",
                1,
            ),
            _line("  of roofline", Quartiles.of(one.roofline_fraction for one in rounds), "", 3),
        ]
        rate, fraction = self._large_page_rate(), self._large_page_fraction()
        if rate is not None and fraction is not None:
            unit = f"of {rate / _GIGA:.1f} GB/s, the memory's rate in pages of 2 MiB"
            lines.append(_line("  of large pages", fraction, unit, 3))
        if self.weight_bytes < _CACHED_BYTES:
            lines.append(
                "  these weights are small enough to stay in a cache, so memory is no limit here"
            )
        return lines

    def _prefill_lines(self) -> list[str]:
        rounds, tokens = self.prefill, self.settings.prompt_tokens
        rates = Quartiles.of(tokens / one.prefill_s for one in rounds)
        matmul = Quartiles.of(one.matmul_flop_per_s / _GIGA for one in rounds)
        seconds = Quartiles.of(one.prefill_s for one in rounds)
        return [
            _line("prefill", rates, "tokens/s", 0),
            _text(
                "  executed",
                f"{self.prefill_flop / _GIGA:.4g} Gflop for {self.computed_tokens} tokens, "
                "padding included",
            ),
            _line("  matrix product", matmul, f"Gflop/s, 2048 cubed, {self.artifact.dtype}", 0),
            _line("  of its rate", self._matmul_fraction(), "", 3),
            _line("first token", seconds, "s", 3),
        ]

    def _opening_lines(self) -> list[str]:
        opening = self.opening
        return [
            _text(
                "open",
                f"{opening.open_s:.2f} s in a fresh process: check {opening.check_s:.2f}, "
                f"load {opening.load_s:.2f}; imports before {opening.import_s:.1f} s",
            ),
            _text("  first token", f"{opening.first_token_s:.3f} s of its first prompt"),
        ]

    def _eager_lines(self) -> list[str]:
        decode = Quartiles.of(one.eager_tokens_per_s or 0.0 for one in self.decode)
        first = Quartiles.of(one.eager_first_token_s or 0.0 for one in self.prefill)
        faster = ratios(
            [one.eager_first_token_s for one in self.prefill],
            [one.prefill_s for one in self.prefill],
        )
        return [
            _line("transformers", decode, "tokens/s, decode of generate", 1),
            _line("  speedup", self._speedup(), "times its decode", 2),
            _line("  first token", first, f"s; ours {faster.median:.2f} times as fast", 3),
            _text("  open", f"{self.eager_open_s or 0.0:.2f} s, imports included, once"),
        ]

    def _variant_lines(self) -> list[str]:
        names, bought = ", ".join(self.settings.without), self._bought()
        noun = "the patch buys" if len(self.settings.without) == 1 else "these patches buy"
        line = (
            f"without {names}: {self._variant_tokens_per_s():.1f} tokens/s, {noun} "
            f"{bought.median:.2f}x ({bought.low:.2f} .. {bought.high:.2f})"
        )
        return [line]


def _side_by_side_lines(side: SideBySide) -> list[str]:
    return [
        _line(
            "side by side",
            side.tokens_per_s,
            f"tokens/s together: {_counted(side.sessions, 'session')} of "
            f"{_counted(side.threads, 'thread')} each",
            1,
        ),
        _line(
            "  of roofline",
            side.roofline_fraction,
            f"of {side.read_bytes_per_s / _GIGA:.1f} GB/s; above 1 if they share cached weights",
            3,
        ),
        _text(
            "  private memory",
            f"{side.private_bytes / 1e6:.0f} MB a session; "
            f"{side.shared_weights_bytes / 1e6:.0f} MB of weights are shared",
        ),
    ]


def _line(name: str, found: Quartiles, unit: str, digits: int) -> str:
    spread = f"({found.low:.{digits}f} .. {found.high:.{digits}f})"
    return _text(name, f"{found.median:.{digits}f} {spread} {unit}".rstrip())


def _text(name: str, text: str) -> str:
    return f"{name:<20}{text}"


def _median(values: Any) -> float:
    return Quartiles.of(values).median


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
