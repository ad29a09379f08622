"""Which token is chosen, when logits are asked for, and what its log-probability is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rdu_batch.errors import RowError, SessionBroken
from rdu_batch.job.records import Reason
from rdu_batch.job.spec import GenerationSpec
from rdu_batch.sessions.choosing import log_probability
from rdu_batch.sessions.decode_loop import FinishReason, Generation, generate
from rdu_batch.sessions.door import SessionInfo, Step
from rdu_batch.sessions.fake import EOS_TOKEN_ID, VOCAB_SIZE, FakeSession
from rdu_batch.sessions.tokenizer import ByteTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND_BEST = ord("z")
INFO = SessionInfo("scored", 4096, 1, VOCAB_SIZE, "fp32", 1)


@dataclass
class ScoredSession:
    """Wants to say ``script``; ``z`` is its second choice, and nothing else is possible."""

    script: Sequence[int]
    info: SessionInfo = INFO
    asked: list[bool] = field(default_factory=list)

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        self.asked.clear()
        return self._step(want_logits)

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        return self._step(want_logits)

    def _step(self, want_logits: bool) -> Step:
        token_id = self.script[len(self.asked)]
        self.asked.append(want_logits)
        logits_1V = torch.full((1, VOCAB_SIZE), -math.inf)
        logits_1V[0, SECOND_BEST] = 1.0
        logits_1V[0, token_id] = 2.0
        return Step(token_id, logits_1V if want_logits else None)

    def reset(self) -> None:
        pass

    def close(self) -> None:
        pass


def say(
    script: Sequence[int], prompt_ids: Sequence[int] = (1, 2), **settings: Any
) -> tuple[Generation, list[bool]]:
    """A generation, and for which tokens logits were asked."""
    session = ScoredSession(script)
    spec = GenerationSpec(**{"max_new_tokens": len(script)} | settings)
    return generate(session, ByteTokenizer(), prompt_ids, spec, row_seed=3), session.asked


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, [False] * 4),
        ({"top_k": 3, "top_p": 0.5, "min_p": 0.5, "stop": ["x"]}, [False] * 4),
        ({"stop_token_ids": [200]}, [False] * 4),
        ({"min_new_tokens": 2}, [True, True, False, False]),
        ({"repetition_penalty": 1.1}, [True] * 4),
        ({"temperature": 0.5}, [True] * 4),
        ({"logprobs": True}, [True] * 4),
    ],
)
def test_logits_are_asked_for_only_where_something_needs_them(
    settings: dict[str, Any], asked: list[bool]
) -> None:
    """They cost a copy of the whole vocabulary; a greedy row has the session's own token."""
    assert say(b"abcd", **settings)[1] == asked


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"repetition_penalty": 1.01}])
def test_neither_eos_nor_a_stop_token_is_chosen_before_min_new_tokens(
    settings: dict[str, Any],
) -> None:
    """The next best is; after them the model may end where it likes."""
    script = [ord("a"), EOS_TOKEN_ID, ord("!"), ord("b"), ord("!"), ord("c")]
    found, _ = say(script, min_new_tokens=3, stop_token_ids=[ord("!")], top_k=1, **settings)
    assert (found.text, found.finish_reason) == ("azzb", FinishReason.STOP)
    assert found.num_generated_tokens == 5
    found, _ = say([*b"ab", EOS_TOKEN_ID, *b"cd"], min_new_tokens=2, top_k=1, **settings)
    assert (found.text, found.finish_reason) == ("ab", FinishReason.EOS)


def test_min_new_tokens_do_not_hold_a_limit_up() -> None:
    """They end with max_new_tokens at the latest."""
    found, _ = say([EOS_TOKEN_ID] * 3, min_new_tokens=3, max_new_tokens=3)
    assert (found.text, found.finish_reason) == ("zzz", FinishReason.LENGTH)


def test_stop_tokens_beyond_the_vocabulary_do_no_harm() -> None:
    """A model may not have them; no number is too large."""
    found, _ = say(b"ab", min_new_tokens=1, stop_token_ids=[VOCAB_SIZE, 10**30])
    assert found.text == "ab"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_forbids_every_token_ends_and_nothing_else(temperature: float) -> None:
    """Its own settings can do that, so it must not break the session."""
    with pytest.raises(RowError) as caught:
        say(
            b"ab",
            min_new_tokens=1,
            stop_token_ids=list(range(VOCAB_SIZE)),
            temperature=temperature,
        )
    assert caught.value.reason == Reason.NOTHING_TO_CHOOSE


@pytest.mark.parametrize("settings", [{"repetition_penalty": 2.0}, {"min_new_tokens": 2}])
def test_logits_that_are_no_numbers_break_the_session(settings: dict[str, Any]) -> None:
    """Before any processor hides them."""

    class Broken(ScoredSession):
        def _step(self, want_logits: bool) -> Step:
            return Step(0, torch.full((1, VOCAB_SIZE), math.nan))

    spec = GenerationSpec(**settings)
    with pytest.raises(SessionBroken, match="highest logit is nan"):
        generate(Broken([]), ByteTokenizer(), [1], spec, row_seed=0)


def test_a_repetition_penalty_counts_the_prompt_and_the_generated_tokens() -> None:
    """A score of 2 divided by 3 falls below the second best's 1, which falls when it was said."""
    assert say(b"abac", repetition_penalty=3.0)[0].text == "abzc"
    assert say(b"abcd", list(b"ac"), repetition_penalty=3.0)[0].text == "zbcd"


def test_a_penalty_that_leaves_several_highest_takes_the_lowest_id() -> None:
    """As a session does: 2 / 2 is the second best's 1."""
    assert say(b"aa", repetition_penalty=2.0)[0].text == "aa"
    high = say([200, 200], repetition_penalty=2.0)[0]
    assert high.token_ids == (200, SECOND_BEST)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.5, "top_p": 0.9},
        {"repetition_penalty": 1.3, "min_new_tokens": 5},
        {"temperature": 0.8, "min_p": 0.01, "repetition_penalty": 1.3},
    ],
)
def test_log_probabilities_are_the_models_own_and_change_no_token(settings: dict[str, Any]) -> None:
    """One for each token, eos too, whatever made the row choose it."""
    prompt_ids = list(b"Question 0: what is it?")
    spec = GenerationSpec(max_new_tokens=40, **settings)
    plain = generate(FakeSession(), ByteTokenizer(), prompt_ids, spec, row_seed=5)
    asked = spec.model_copy(update={"logprobs": True})
    found = generate(FakeSession(), ByteTokenizer(), prompt_ids, asked, row_seed=5)
    assert plain.logprobs is None
    assert (found.token_ids, found.text) == (plain.token_ids, plain.text)
    assert found.logprobs is not None
    session = FakeSession()
    step = session.prefill(prompt_ids, want_logits=True)
    for position, (token_id, logprob) in enumerate(
        zip(found.token_ids, found.logprobs, strict=True), start=len(prompt_ids)
    ):
        assert step.logits_1V is not None
        logits = step.logits_1V[0].tolist()
        total = math.fsum(math.exp(one) for one in logits)
        assert abs(logprob - (logits[token_id] - math.log(total))) <= 5.1e-7
        step = session.decode(token_id, position, want_logits=True)


def test_a_log_probability_has_six_decimals_and_one_zero() -> None:
    """So that its text is short, and the same wherever it is summed."""
    assert log_probability(torch.tensor([[0.0, 0.0, 0.0]]), 1) == -1.098612
    certain = log_probability(torch.tensor([[100.0, 0.0]]), 0)
    assert str(certain) == "0.0"
    impossible = log_probability(torch.tensor([[1e38, -1e38]]), 1)
    assert math.isclose(impossible, -2e38, rel_tol=1e-6)
    assert log_probability(torch.tensor([[0.0, -math.inf]]), 0) == 0.0
