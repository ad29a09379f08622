"""Draws: reproducible per row, and distributed as the settings say."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from rdu_batch.errors import SessionBroken
from rdu_batch.job.spec import GenerationSpec
from rdu_batch.sessions.decode_loop import generate, row_seed_of
from rdu_batch.sessions.fake import FakeSession
from rdu_batch.sessions.sampling import Sampler
from rdu_batch.sessions.tokenizer import ByteTokenizer

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -3.0, 1.5, -20.0]


def expected_shares(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> dict[int, float]:
    """The definition in plain Python: temperature, top-k, top-p, min-p, then normalize."""
    weights = {index: math.exp(value / temperature) for index, value in enumerate(LOGITS)}
    ranked = sorted(weights, key=lambda index: -weights[index])[: top_k or len(LOGITS)]
    if top_p is not None:
        total, kept, mass = sum(weights[index] for index in ranked), [], 0.0
        for index in ranked:
            if mass >= top_p:
                break
            kept.append(index)
            mass += weights[index] / total
        ranked = kept
    if min_p is not None:
        ranked = [index for index in ranked if weights[index] >= min_p * weights[ranked[0]]]
    total = sum(weights[index] for index in ranked)
    return {index: weights[index] / total for index in ranked}


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, None, None, None),
        (0.5, None, None, None),
        (2.0, 3, None, None),
        (1.0, None, 0.8, None),
        (0.7, 4, 0.9, None),
        (1.0, 1, None, None),
        (1.0, 999, 1.0, None),
        (1.0, None, None, 0.2),
        (2.0, None, None, 0.5),
        (0.7, 6, 0.95, 0.3),
        (1.0, None, None, 1.0),
    ],
)
def test_draws_have_the_shares_that_the_settings_ask_for(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    """Against the definition, over many draws of one seed."""
    generation = GenerationSpec(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    sampler = Sampler(generation, row_seed=123)
    num_draws = 3000
    drawn = Counter(sampler.draw(torch.tensor([LOGITS])) for _ in range(num_draws))
    expected = expected_shares(temperature, top_k, top_p, min_p)
    assert drawn.keys() <= expected.keys()
    for index, share in expected.items():
        deviation = math.sqrt(share * (1 - share) / num_draws)
        assert abs(drawn[index] / num_draws - share) <= 5 * deviation + 1e-9


def test_the_smallest_temperature_is_greedy_and_does_not_overflow() -> None:
    """Logits divided by next to nothing."""
    for temperature in (1e-6, 1e-30, 5e-324):
        sampler = Sampler(GenerationSpec(temperature=temperature), row_seed=1)
        assert {sampler.draw(torch.tensor([LOGITS]) * 100) for _ in range(20)} == {0}


def test_a_token_without_probability_is_never_drawn() -> None:
    """Not even when the random number is the largest there is."""
    sampler = Sampler(GenerationSpec(temperature=1.0), row_seed=1)
    logits = torch.tensor([[0.0, 0.0, -math.inf, -math.inf]])
    assert {sampler.draw(logits) for _ in range(500)} == {0, 1}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_break_the_session(value: float) -> None:
    """No token of such a model means anything."""
    sampler = Sampler(GenerationSpec(temperature=1.0), row_seed=1)
    with pytest.raises(SessionBroken, match="highest logit"):
        sampler.draw(torch.tensor([[1.0, value]]))


def test_drawing_leaves_the_logits_as_they_were() -> None:
    """They may be a view into the session's own memory."""
    logits = torch.tensor([LOGITS])
    Sampler(GenerationSpec(temperature=0.5, top_k=2), row_seed=1).draw(logits)
    assert logits.equal(torch.tensor([LOGITS]))


def sample(prompt: bytes, row_seed: int, session: FakeSession | None = None) -> tuple[int, ...]:
    generation = GenerationSpec(temperature=1.5, max_new_tokens=40)
    session = session or FakeSession()
    return generate(session, ByteTokenizer(), prompt, generation, row_seed=row_seed).token_ids


def test_a_sampled_row_depends_on_its_own_seed_and_prompt_alone() -> None:
    """Not on the rows before it, nor on torch's global random state."""
    session = FakeSession()
    alone = sample(b"a row", 5)
    sample(b"another row", 6, session)
    torch.manual_seed(99)
    assert sample(b"a row", 5, session) == alone
    assert sample(b"a row", 6, session) != alone


def test_sampled_tokens_are_pinned() -> None:
    """A resume with a later version of this program must draw the same."""
    sampler = Sampler(GenerationSpec(temperature=1.0), row_seed=row_seed_of(0, "a.jsonl", 1))
    assert [sampler.draw(torch.tensor([LOGITS])) for _ in range(12)] == [
        0,
        1,
        1,
        6,
        1,
        6,
        0,
        6,
        6,
        0,
        0,
        6,
    ]


def test_row_seeds_are_pinned() -> None:
    """The same on every machine, for good."""
    assert row_seed_of(0, "a.jsonl", 1) == 4474156179444948041
    assert row_seed_of(7, "b/ü.jsonl", 12, sample=3) == 6814305248958376254


def test_row_seeds_differ_by_every_part_and_parts_do_not_run_together() -> None:
    """("a1", 1) is not ("a", 11)."""
    parts = [(0, "a", 11), (0, "a1", 1), (1, "a", 11), (0, "a", 1), (11, "a", 0), (0, "", 11)]
    seeds = {row_seed_of(*one, sample=sample) for one in parts for sample in (0, 1)}
    assert len(seeds) == 2 * len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
