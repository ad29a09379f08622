"""How much was done when: the sums stay those of the answers, in a bounded number of bins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.runner.run_account import MAX_WORKERS_TOLD, RunAccount
from rdu_batch.runner.throughput import MAX_BINS, Throughput
from rdu_batch.runner.worker_seconds import WorkerAccount, WorkerSeconds


def test_an_answer_is_spread_over_the_time_that_it_took():
    """Ten rows in two and a half seconds, from the middle of the first second."""
    told = Throughput()
    told.add(0.5, 3.0, rows=10, generated_tokens=50)
    assert told.to_json()["end_s"] == 3.0
    assert told.rows == pytest.approx([2.0, 4.0, 4.0, 0.0])
    assert told.generated_tokens == pytest.approx([10.0, 20.0, 20.0, 0.0])


def test_an_answer_without_a_duration_counts_where_it_ended():
    """Also one that claims to have begun before the run."""
    told = Throughput()
    told.add(1.5, 1.5, rows=3, generated_tokens=0)
    told.add(-4.0, 1.0, rows=5, generated_tokens=0)
    assert told.rows == pytest.approx([5.0, 3.0])


@given(
    st.lists(
        st.tuples(st.floats(0, 1e7), st.floats(0, 1e6), st.integers(1, 1000), st.integers(0, 9999)),
        min_size=1,
    )
)
def test_whatever_a_run_lasts_the_bins_are_few_and_the_sums_right(answers):
    """Any order, any length."""
    told = Throughput()
    for end_s, took_s, rows, tokens in answers:
        told.add(end_s - took_s, end_s, rows=rows, generated_tokens=tokens)
    assert len(told.rows) == len(told.generated_tokens) <= MAX_BINS
    assert sum(told.rows) == pytest.approx(sum(rows for *_, rows, _ in answers))
    assert sum(told.generated_tokens) == pytest.approx(sum(tokens for *_, tokens in answers))


def test_a_result_tells_of_the_workers_that_lived_longest():
    """In the order of their ids, whatever the order of their deaths."""
    accounts = [
        WorkerAccount(number, rows=number, seconds=WorkerSeconds(decode_s=float(number)))
        for number in reversed(range(MAX_WORKERS_TOLD + 5))
    ]
    told = RunAccount(workers=tuple(accounts)).to_json()["by_worker"]
    assert [one["worker_id"] for one in told] == list(range(5, MAX_WORKERS_TOLD + 5))
    assert told[0]["seconds"]["total_s"] == told[0]["rows"] == 5
