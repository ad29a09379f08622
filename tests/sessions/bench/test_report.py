"""The table and the JSON line, from fixed numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.bench.report import BenchReport

#: What programs may rely on.
KEYS = {
    "decode_tokens_per_s": 10.0,
    "read_bytes_per_s": 40e9,
    "bytes_per_token": 2e9,
    "roofline_fraction": 0.5,
    "large_page_fraction": 0.4,
    "prefill_tokens_per_s": 256.0,
    "matmul_flop_per_s": 160e9,
    "prefill_matmul_fraction": 0.8,
    "open_s": 0.3,
    "first_token_s": 0.5,
    "eager_decode_tokens_per_s": None,
    "speedup": None,
    "private_bytes_per_session": None,
}
TABLE = """\
store/model: llama, fp32, 2 threads, 128 prompt tokens, 64 new ones; medians of 1 round (quartiles)
decode              10.0 (10.0 .. 10.0) tokens/s
  bytes a token     2 GB: weights 1.9, keys and values 0.1
  read bandwidth    40.0 (40.0 .. 40.0) GB/s, the greatest of: own loop 35.0, torch.sum 35.0
  of roofline       0.500 (0.500 .. 0.500)
  of large pages    0.400 (0.400 .. 0.400) of 50.0 GB/s, the memory's rate in pages of 2 MiB
prefill             256 (256 .. 256) tokens/s
  executed          64 Gflop for 128 tokens, padding included
  matrix product    160 (160 .. 160) Gflop/s, 2048 cubed, fp32
  of its rate       0.800 (0.800 .. 0.800)
first token         0.500 (0.500 .. 0.500) s
open                0.30 s in a fresh process: check 0.25, load 0.05; imports before 1.5 s
  first token       0.900 s of its first prompt
transformers        4.0 (4.0 .. 4.0) tokens/s, decode of generate
  speedup           2.50 (2.50 .. 2.50) times its decode
  first token       1.000 (1.000 .. 1.000) s; ours 2.00 times as fast
  open              3.00 s, imports included, once
without row_kernel: 8.0 tokens/s, the patch buys 1.25x (1.25 .. 1.25)
side by side        18.0 (17.0 .. 19.0) tokens/s together: 2 sessions of 2 threads each
  of roofline       0.800 (0.700 .. 0.900) of 45.0 GB/s; above 1 if they share cached weights
  private memory    32 MB a session; 269 MB of weights are shared"""


def test_what_was_not_measured_is_null(report: Callable[..., BenchReport]) -> None:
    """All keys are there, and the rest have the numbers of the rounds."""
    document = json.loads(json.dumps(report().to_json()))
    assert {name: document[name] for name in KEYS} == KEYS
    assert document["exit"] == 0


def test_what_was_measured_has_its_numbers(report: Callable[..., BenchReport]) -> None:
    """Transformers at 4 tokens/s, a variant at 8, two sessions side by side."""
    document = report(against_eager=True, sessions=2, without=("row_kernel",)).to_json()
    assert document["eager_decode_tokens_per_s"] == 4.0
    assert document["speedup"] == 2.5
    assert document["eager_first_token_s"] == 1.0
    assert document["without_speedup"] == 1.25
    assert document["sessions_tokens_per_s"] == 18.0
    assert document["private_bytes_per_session"] == 32_000_000


def test_the_table_of_fixed_numbers(report: Callable[..., BenchReport]) -> None:
    """Line by line."""
    lines = report(against_eager=True, sessions=2, without=("row_kernel",)).to_lines()
    assert lines == TABLE.splitlines()


def test_weights_that_fit_in_a_cache_are_said_to(report: Callable[..., BenchReport]) -> None:
    """Because the fraction then means nothing."""
    from dataclasses import replace

    small = replace(report(), weight_bytes=1 << 20)
    assert any("small enough to stay in a cache" in line for line in small.to_lines())
    assert not any("in a cache, so" in line for line in report().to_lines())
