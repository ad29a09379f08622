"""Rounds with plain numbers, and a report made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.sessions.bench.report import BenchReport
from rdu_batch.sessions.bench.rounds import DecodeRound, PrefillRound, Quartiles, ReadRates
from rdu_batch.sessions.bench.settings import BenchSettings
from rdu_batch.sessions.bench.side_by_side import Opening, SideBySide

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact


@pytest.fixture
def decode_round() -> Callable[..., DecodeRound]:
    """Ten tokens/s of 2 GB each; memory reads 30 GB/s before and 50 GB/s after."""

    def make(**changes: Any) -> DecodeRound:
        values: dict[str, Any] = {
            "before": ReadRates(torch_sum=20e9, own=30e9, large_pages=60e9),
            "after": ReadRates(torch_sum=50e9, own=40e9, large_pages=40e9),
            "tokens_per_s": 10.0,
            "bytes_per_token": 2e9,
        }
        return DecodeRound(**values | changes)

    return make


@pytest.fixture
def report(
    tmp_path: Path,
    artifact_of: Callable[..., LocalArtifact],
    decode_round: Callable[..., DecodeRound],
) -> Callable[..., BenchReport]:
    """A report of one round of each kind."""

    def make(**settings: Any) -> BenchReport:
        chosen = BenchSettings(str(tmp_path), threads=2, **settings)
        eager = chosen.against_eager
        side = SideBySide(
            sessions=chosen.sessions or 0,
            threads=2,
            tokens_per_s=Quartiles(17.0, 18.0, 19.0),
            read_bytes_per_s=45e9,
            roofline_fraction=Quartiles(0.7, 0.8, 0.9),
            private_bytes=32_000_000,
            shared_weights_bytes=269_000_000,
        )
        return BenchReport(
            settings=chosen,
            artifact=artifact_of(tmp_path, url="store/model").artifact,
            weight_bytes=1_900_000_000,
            prefill_flop=64_000_000_000,
            computed_tokens=128,
            opening=Opening(import_s=1.5, check_s=0.25, load_s=0.05, first_token_s=0.9),
            decode=[
                decode_round(
                    eager_tokens_per_s=4.0 if eager else None,
                    variant_tokens_per_s=8.0 if chosen.without else None,
                )
            ],
            prefill=[
                PrefillRound(
                    prefill_s=0.5,
                    matmul_before_flop_per_s=150e9,
                    matmul_after_flop_per_s=170e9,
                    eager_first_token_s=1.0 if eager else None,
                )
            ],
            eager_open_s=3.0 if eager else None,
            side_by_side=side if chosen.sessions else None,
        )

    return make
