"""Predictions by hand: known samples, known speeds, known answers."""

from __future__ import annotations

import math

import pytest

from rdu_batch.job.speed import Interval, Speed
from rdu_batch.report.prediction import (
    PROCESS_START_S,
    DeadSample,
    Prediction,
    RowTokens,
    forecast,
    span,
    sum_of_totals,
    token_totals,
    total_of,
    worker_counts,
)
from rdu_batch.report.summary import Summary

SPEED = Speed(Interval(100, 200), Interval(10, 20), Interval(1, 3), 2, "A Processor")


def test_a_sample_of_every_row_is_exact() -> None:
    """There is nothing to estimate."""
    assert total_of([1, 2, 6], 3) == (9, 9)
    assert total_of([], 0) == (0, 0)


def test_a_sample_of_some_rows_gives_its_mean_with_two_errors_to_each_side() -> None:
    """By hand: mean 20, 4 rows of 101, and a factor for a sample that is some of the whole."""
    deviation = math.sqrt(200 / 3)
    error = 1.96 * deviation / math.sqrt(4) * math.sqrt(97 / 100) * 101
    found = total_of([10, 20, 30, 20], 101)
    assert found.low == pytest.approx(2020 - error)
    assert found.high == pytest.approx(2020 + error)
    assert total_of([5, 0], 100).low == 0


def test_one_row_of_several_is_no_exact_knowledge() -> None:
    """Off by as much as itself, twice."""
    low, high = total_of([7], 50)
    assert low == 0
    assert high == pytest.approx(50 * 7 * 2.96)


def test_the_interval_holds_the_truth_for_nearly_all_samples() -> None:
    """95 of 100 at least, less three: rows of known totals, sampled by a fixed generator."""
    import random

    draw = random.Random(3)
    rows = [draw.randint(1, 400) for _ in range(5000)]
    held = 0
    for _ in range(200):
        low, high = total_of(draw.sample(rows, 200), len(rows))
        held += low <= sum(rows) <= high
    assert held >= 184


def test_totals_count_each_sample_s_prefill_and_leave_out_first_tokens_in_decode() -> None:
    """Two rows, the second with three samples; a dead one costs nothing."""
    totals = token_totals([RowTokens(10, 1, 5), RowTokens(20, 6, 30, 3), RowTokens(0, 0, 0)], 3)
    assert totals.prompt == (30, 30)
    assert totals.prefilled == (70, 70)
    assert totals.generated == (7, 35)
    assert totals.decoded == (3, 31)


def test_a_run_s_times_by_hand() -> None:
    """100 rows: 4000 prompt tokens, 0 to 900 decoded; one worker, then three."""
    totals = token_totals([RowTokens(40, 1, 10)] * 100, 100)
    one, three = forecast(totals, SPEED, 1), forecast(totals, SPEED, 3)
    start = Interval(PROCESS_START_S.low + 1, PROCESS_START_S.high + 3)
    assert one.wall_s == pytest.approx((start.low + 4000 / 200, start.high + 40 + 90))
    assert three.wall_s == pytest.approx((start.low + 0.34 * 20, start.high + 0.34 * 130))
    assert three.worker_hours == pytest.approx([3 * wall_s / 3600 for wall_s in three.wall_s])


@pytest.mark.parametrize(
    ("most", "counts"), [(0, [1]), (1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])]
)
def test_worker_counts_are_powers_of_two_and_the_most(most: int, counts: list[int]) -> None:
    """Each once."""
    assert worker_counts(most) == counts


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (Interval(41.2, 54.6), "41-55 s"),
        (Interval(2.04, 2.04), "2.0 s"),
        (Interval(30, 400), "0.5-6.7 min"),
        (Interval(3600, 36000), "1-10 h"),
        (Interval(0, 0), "0.0 s"),
    ],
)
def test_a_span_has_a_readable_unit(seconds: Interval, words: str) -> None:
    """That of its end."""
    assert span(seconds) == words


def test_without_a_speed_tokens_alone_are_told() -> None:
    """And why; without token counts nothing but that."""
    totals = token_totals([RowTokens(40, 1, 10)] * 2, 2)
    dead = (DeadSample("not_json", 1, "a.jsonl", 7, "found \x1b"),)
    lines = Prediction(totals, None, (), dead, "no times: because", 2).to_lines()
    assert [line.split("  (")[0] for line in lines] == [
        "prediction",
        "  prompt tokens     80",
        "  generated tokens  2-20",
        "  dead letters      1 of 2 sampled rows",
        "    not_json 1, such as a.jsonl:7: found \\u001b",
        "  no times: because",
    ]
    assert Prediction(None, None, (), note="unknown").to_json()["prompt_tokens"] is None


@pytest.mark.parametrize(
    ("may_stop_early", "said"),
    [(True, "stops early (exit 10)"), (False, "ends with exit 5 where limits.max_dead_rows is")],
)
def test_most_rows_dead_is_said_with_what_a_run_makes_of_it(
    may_stop_early: bool, said: str
) -> None:
    """Reasons with their numbers and an example each, whether tokens are known or not."""
    dead = (
        DeadSample("missing_field", 20, "a.jsonl", 1, 'the row has no field "x"'),
        DeadSample("not_json", 1, "b.jsonl", 3, "found }"),
    )
    found = Prediction(None, None, (), dead, "unknown", 24, may_stop_early)
    assert found.to_lines()[1:4] == [
        "  dead letters      21 of 24 sampled rows",
        '    missing_field 20, such as a.jsonl:1: the row has no field "x"',
        "    not_json 1, such as b.jsonl:3: found }",
    ]
    assert found.to_lines()[4].startswith("  most rows would be dead letters: a run ")
    assert said in found.to_lines()[4]
    assert found.to_json()["mostly_dead"]
    example = {"path": "b.jsonl", "line": 3, "detail": "found }"}
    assert found.to_json()["sampled_dead_reasons"]["not_json"] == {"rows": 1, "example": example}
    half = Prediction(None, None, (), dead, None, 42)
    assert not half.to_json()["mostly_dead"]
    assert "most rows" not in "".join(half.to_lines())


def test_kinds_of_rows_add_up() -> None:
    """Low ends to low ends, high ends to high ends."""
    one, other = token_totals([RowTokens(10, 1, 5)], 1), token_totals([RowTokens(1, 1, 1)], 3)
    both = sum_of_totals([one, other])
    assert (both.num_rows, both.num_sampled) == (4, 2)
    assert both.prompt == (10, 10 + other.prompt.high)
    assert both.generated == (1 + other.generated.low, 5 + other.generated.high)


def test_a_speed_reads_back_and_anything_else_is_none() -> None:
    """A damaged file is no speed, and no error."""
    assert Speed.from_bytes(SPEED.to_bytes()) == SPEED
    damaged = [b"", b"[]", b"{}", SPEED.to_bytes()[:-9], SPEED.to_bytes().replace(b"100", b"NaN")]
    damaged += [
        SPEED.to_bytes().replace(b"100", b"0"),
        SPEED.to_bytes().replace(b'": 1,', b'": 2,'),
    ]
    for content in damaged:
        assert Speed.from_bytes(content) is None


@pytest.mark.parametrize(
    ("wall_s", "said"),
    [
        (48.0, "41-55 s, took 48 s\n"),
        (110.0, "41-55 s, took 110 s: 100% more\n"),
        (20.5, "41-55 s, took 20 s: 50% less\n"),
    ],
)
def test_the_summary_says_how_far_off_the_prediction_was(wall_s: float, said: str) -> None:
    """In its lines and in its JSON, which has no such key where nothing was predicted."""
    summary = Summary(
        "job", "complete", 0, "/out", wall_s=wall_s, predicted_wall_s=Interval(41, 55)
    )
    assert f"predicted  {said}" in summary.to_text()
    assert summary.to_json()["predicted_wall_s"] == [41, 55]
    assert "predicted" not in Summary("job", "complete", 0, "/out", wall_s=1).to_line()
