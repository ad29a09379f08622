"""Decode in buckets, through recorded calls: all of it that needs no GPU."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.masking_utils import sliding_window_causal_mask_function

from rdu_batch.errors import SessionBroken
from rdu_batch.sessions.door import check_logit
from rdu_batch.sessions.inductor.attention import additive_mask
from rdu_batch.sessions.inductor.replay import (
    ReplayedGraph,
    bucket_of,
    choice_in_one_transfer,
    greedy_choice,
)
from rdu_batch.sessions.inductor.session import InductorSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.inductor.replay import Call

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("num_positions", "bucket"),
    [(1, 64), (64, 64), (65, 128), (1024, 1024), (1025, 1152), (2048, 2048), (2049, 2304)],
)
def test_positions_are_rounded_up_to_a_bucket(num_positions: int, bucket: int) -> None:
    """Multiples of 64, then eight sizes from one power of two to the next."""
    assert bucket_of(num_positions, 1 << 20) == bucket


@pytest.mark.parametrize("most", [3, 63, 64, 175, 5000])
def test_a_bucket_holds_its_positions_and_never_more_than_the_graph_takes(most: int) -> None:
    """For each number there is; larger numbers have no smaller bucket."""
    buckets = [bucket_of(number, most) for number in range(1, most + 1)]
    assert all(number <= bucket <= most for number, bucket in enumerate(buckets, 1))
    assert all(one <= other for one, other in pairwise(buckets))
    assert all(bucket_of(bucket, most) == bucket for bucket in buckets)
    assert all(bucket <= number * 9 / 8 for number, bucket in enumerate(buckets, 1) if number > 512)


def test_long_models_have_few_buckets() -> None:
    """One recording each."""
    most = 128 << 10
    assert len({bucket_of(number, most) for number in range(1, most + 1)}) == 72


def test_what_lies_behind_a_token_is_masked_whatever_the_bucket() -> None:
    """With and without a window; inside, the mask is that of the exact number of positions."""
    for function, window in (
        (lambda _batch, _head, query, key: key <= query, None),
        (sliding_window_causal_mask_function(5), 5),
    ):
        for position in (0, 3, 63, 64, 90):
            asked: dict[str, Any] = {"q_length": 1, "mask_function": function, "local_size": window}
            offset = torch.tensor(position)
            exact = additive_mask(q_offset=offset, kv_length=position + 1, **asked)
            wide = additive_mask(q_offset=offset, kv_length=bucket_of(position + 1, 100), **asked)
            assert wide[..., : position + 1].equal(exact)
            assert wide[..., position + 1 :].isneginf().all()


class CountingGraph:
    """A graph that answers with its inputs, and notes each run."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int, int]] = []

    def run(self, inputs: list[Tensor]) -> list[Tensor]:
        token_11, position_1, mask_111N, *_ = inputs
        self.runs.append((int(token_11), int(position_1), mask_111N.shape[-1]))
        return [token_11, position_1]


def test_each_bucket_is_recorded_once_and_every_answer_is_a_replay() -> None:
    """The inputs of a recording are the same tensors for good; calls write into them."""
    graph, recorded = CountingGraph(), []

    def record(call: Call) -> Call:
        warm = call()
        recorded.append([tensor.data_ptr() for tensor in warm])
        return call

    replayed = ReplayedGraph(graph, CPU, record)
    for token, position in ((5, 1), (6, 2), (7, 64), (8, 3)):
        mask = torch.zeros(1, 1, 1, bucket_of(position + 1, 1000))
        token_11, position_1 = torch.tensor([[token]]), torch.tensor([position])
        found = replayed.run([token_11, position_1, mask])
        assert [int(tensor) for tensor in found] == [token, position]
    assert len(recorded) == 2
    assert recorded[0] == recorded[1]
    # The recording's own run has the very inputs of the call it is made for.
    assert graph.runs == [(5, 1, 64)] * 2 + [(6, 2, 64)] + [(7, 64, 128)] * 2 + [(8, 3, 64)]


def test_the_choice_that_comes_in_one_transfer_is_the_same() -> None:
    """For the largest ids too, and for a NaN, which ends the session."""
    logits = torch.randn(1, 300_000)
    logits[0, 299_999] = 9.0
    token = logits.argmax(-1)
    assert choice_in_one_transfer(token, logits) == greedy_choice(token, logits)
    assert choice_in_one_transfer(token, logits)[0] == 299_999
    logits[0, 7] = float("nan")
    token_id, logit = choice_in_one_transfer(logits.argmax(-1), logits)
    assert token_id == 7
    with pytest.raises(SessionBroken):
        check_logit(logit)


def in_buckets(session: InductorSession) -> InductorSession:
    """The same session, decoding as on a GPU; a call stands for its recording."""

    def record(call: Call) -> Call:
        call()
        return call

    cache_length = session._keys_values[0].shape[2]
    session._decode_graph = ReplayedGraph(session._decode_graph, CPU, record)
    session._attended = partial(bucket_of, most=cache_length - 1)
    return session


@pytest.mark.slow
@pytest.mark.all_only
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_compiled_graphs_compute_the_same_in_buckets(
    family: str,
    long_checkpoint: Callable[[str], Path],
    compiled_from: Callable[..., LocalArtifact],
) -> None:
    """Tokens and logits across both edges and up to the last position; and plain transformers'."""
    local = compiled_from(
        long_checkpoint(family),
        dtype="fp32",
        max_seq_length=150,
        prefill_chunk=16,
        # What graphs for a GPU have none of.
        without=("row_kernel", "joined_rows", "row_attention"),
    )
    ids = [(31 * index * index + 17) % 448 for index in range(150)]
    exact = InductorSession.open(local, threads=1)
    bucketed = in_buckets(InductorSession.open(local, threads=1))
    fresh = in_buckets(InductorSession.open(local, threads=1))
    # An earlier row leaves its keys and values behind all that is decoded next.
    bucketed.prefill(ids[::-1][:149])
    bucketed.reset()

    def steps(session: InductorSession) -> tuple[list[int], Tensor]:
        found = [session.prefill(ids[:40], want_logits=True)]
        found += [session.decode(ids[at], at, want_logits=True) for at in range(40, 150)]
        logits = [step.logits_1V for step in found if step.logits_1V is not None]
        return [step.token_id for step in found], torch.cat(logits)

    tokens, logits = steps(bucketed)
    wanted_tokens, wanted_logits = steps(exact)
    assert tokens == wanted_tokens
    torch.testing.assert_close(logits, wanted_logits, rtol=1e-5, atol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(long_checkpoint(family)).eval()
    with torch.no_grad():
        oracle = plain(torch.tensor([ids])).logits[0, 39:]
    torch.testing.assert_close(logits, oracle, rtol=1e-4, atol=1e-4)
    # Bit for bit, whatever row came before.
    assert logits.equal(steps(fresh)[1])
    assert set(bucketed._decode_graph._replays) == {64, 128, local.artifact.cache_length - 1}
