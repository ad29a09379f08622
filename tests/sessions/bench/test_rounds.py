"""Medians, ratios inside a round, and what a row decodes in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.sessions.bench.decode import Row
from rdu_batch.sessions.bench.rounds import PrefillRound, Quartiles, ReadRates, ratios, total_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.bench.rounds import DecodeRound


def test_quartiles_are_those_of_the_numbers_in_any_order() -> None:
    """Of five, the second, third and fourth; of one, that one."""
    assert Quartiles.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Quartiles(2.0, 3.0, 4.0)
    assert Quartiles.of([7.0]) == Quartiles(7.0, 7.0, 7.0)
    with pytest.raises(ValueError, match="no numbers"):
        Quartiles.of([])


def test_the_greatest_way_to_read_counts_but_not_large_pages() -> None:
    """The weights do not lie in such."""
    assert ReadRates(torch_sum=3.0, own=5.0, mapped=4.0, large_pages=9.0).best == 5.0
    assert ReadRates(torch_sum=3.0).best == 3.0


def test_a_fraction_is_taken_against_the_mean_of_both_neighbours(
    decode_round: Callable[..., DecodeRound],
) -> None:
    """20 GB/s of 30 and 50."""
    found = decode_round()
    assert found.read_bytes_per_s == 40e9
    assert found.roofline_fraction == pytest.approx(0.5)
    assert found.large_page_bytes_per_s == 50e9
    assert decode_round(after=ReadRates(50e9)).large_page_bytes_per_s is None


def test_a_prefill_is_held_against_the_products_around_it() -> None:
    """64 Gflop in half a second, where products run at 160."""
    found = PrefillRound(0.5, matmul_before_flop_per_s=150e9, matmul_after_flop_per_s=170e9)
    assert found.matmul_fraction(64e9) == pytest.approx(0.8)


def test_ratios_are_taken_pair_by_pair() -> None:
    """So a machine that was twice as fast in one round changes nothing."""
    assert ratios([10.0, 20.0, 10.0], [5.0, 10.0, 5.0]) == Quartiles(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="without one"):
        ratios([1.0], [None])


def test_sessions_count_together_only_while_all_of_them_decode() -> None:
    """The second begins later and ends later; alone it is twice as fast."""
    first = [0.0, 1.0, 2.0, 3.0, 4.0]
    second = [1.0, 2.0, 3.0, 4.0, 4.5, 5.0, 5.5]
    assert total_rate([first, second]) == pytest.approx(2.0)


def test_rows_too_short_to_overlap_count_each_with_its_own_rate() -> None:
    """Ten and five tokens a second."""
    assert total_rate([[0.0, 0.1, 0.2], [5.0, 5.2, 5.4]]) == pytest.approx(15.0)


def test_a_row_starts_anew_when_a_block_no_longer_fits(scripted: Callable[..., Any]) -> None:
    """Six new tokens: one of the prefill, a block of one and four, and no room for another."""
    session = scripted(range(100, 200))
    row = Row(session, [1, 2, 3], new_tokens=6)
    assert row.block_tokens == 4
    for _ in range(2):
        row.make_ready()
        # Four tokens at positions 4 to 7, each attending to one position more than its own.
        assert row.decode_block().mean_positions == 6.5
    calls = [(call[0], call[2]) for call in session.calls]
    wanted = [("prefill", False), *(("decode", position) for position in range(3, 8))]
    assert calls == wanted * 2


def test_each_token_of_a_row_is_fed_to_the_next_decode(scripted: Callable[..., Any]) -> None:
    """As in a real row."""
    session = scripted([10, 11, 12, 13])
    row = Row(session, [1], new_tokens=4)
    row.make_ready()
    row.decode_block()
    assert [call[1] for call in session.calls[1:]] == [10, 11, 12]
