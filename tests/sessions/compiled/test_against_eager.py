"""Compiled against plain transformers, row after row: every prompt length, every way to end.

The oracle is the eager session in fp32, which has no chunks, no kernels and no reuse.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from rdu_batch.errors import RowError
from rdu_batch.job.spec import GenerationSpec
from rdu_batch.sessions.decode_loop import Generation, generate
from rdu_batch.sessions.eager import EagerSession
from rdu_batch.sessions.inductor.session import TAIL_STEP, InductorSession, chunk_tokens
from rdu_batch.sessions.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.door import Session

pytestmark = pytest.mark.slow
#: Nearer logits than this may change places with another order of fp32 sums.
TIE_DISTANCE = 1e-4
FAMILIES = pytest.mark.parametrize("family", ["llama", "gpt2"])
Sessions = tuple[InductorSession, EagerSession]


@pytest.fixture
def sessions(tiny_artifact: Callable[[str, str], LocalArtifact]) -> Callable[[str], Sessions]:
    """Both kinds, opened on the same compiled artifact."""

    def open_both(family: str) -> Sessions:
        local = tiny_artifact("inductor", family)
        return InductorSession.open(local, threads=2), EagerSession.open(local, threads=2)

    return open_both


@pytest.mark.parametrize("family", [pytest.param("llama", marks=pytest.mark.all_only), "gpt2"])
def test_no_prompt_length_and_no_limit_changes_a_token(
    family: str,
    sessions: Callable[[str], Sessions],
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """Lengths 1 to the last one, each with limits of 1 token, of a few, and with a full context."""
    compiled, eager = sessions(family)
    tokenizer = open_tokenizer("inductor", tiny_artifact("inductor", family), chat=False)
    drawn = random.Random(5)
    limit = compiled.info.max_seq_length
    num_ties = 0
    for length in range(1, limit):
        prompt = [drawn.randrange(2, compiled.info.vocab_size) for _ in range(length)]
        for max_new_tokens in (1, 5, limit):
            spec = GenerationSpec(max_new_tokens=max_new_tokens)
            found, wanted = (
                generate(session, tokenizer, prompt, spec, row_seed=0)
                for session in (compiled, eager)
            )
            if found != wanted:
                num_ties += 1
                assert _differ_by_a_tie(eager, prompt, found, wanted), (length, max_new_tokens)
    print(f"{family}: {3 * (limit - 1)} rows, {num_ties} with a tie")  # noqa: T201
    assert num_ties <= 3


def _differ_by_a_tie(
    eager: Session, prompt: list[int], found: Generation, wanted: Generation
) -> bool:
    """Whether the first token that differs had two logits that are nearly the same."""
    pairs = zip(found.token_ids, wanted.token_ids, strict=False)
    index = next(index for index, (one, other) in enumerate(pairs) if one != other)
    step = eager.prefill([*prompt, *wanted.token_ids[:index]], want_logits=True)
    assert step.logits_1V is not None
    best = step.logits_1V[0].topk(2).values
    return float(best[0] - best[1]) < TIE_DISTANCE


@FAMILIES
def test_an_empty_prompt_and_a_full_one_end_alike(
    family: str,
    sessions: Callable[[str], Sessions],
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """The loop refuses both before any session sees them, with the same words."""
    tokenizer = open_tokenizer("inductor", tiny_artifact("inductor", family), chat=False)
    for length in (0, 48, 49):
        said = set()
        for session in sessions(family):
            with pytest.raises(RowError) as caught:
                generate(session, tokenizer, [5] * length, GenerationSpec(), row_seed=0)
            said.add((caught.value.reason, caught.value.detail))
        assert len(said) == 1


@FAMILIES
def test_what_lies_in_the_cache_never_changes_a_bit(
    family: str, sessions: Callable[[str], Sessions]
) -> None:
    """Rows that share prefixes of any length with the row before, against a session that forgot."""
    compiled, _ = sessions(family)
    drawn = random.Random(17)
    limit = compiled.info.max_seq_length
    before: list[int] = []
    for _ in range(60):
        shared = before[: drawn.randrange(len(before) + 1)]
        room = limit - 1 - len(shared)
        if room < 1:
            shared, room = [], limit - 1
        rest = [drawn.randrange(compiled.info.vocab_size) for _ in range(drawn.randint(1, room))]
        prompt = [*shared, *rest]
        kept = _bits(compiled, prompt)
        compiled.reset()
        assert kept == _bits(compiled, prompt), (len(shared), len(prompt))
        before = prompt


def _bits(session: Session, prompt: list[int]) -> list[bytes]:
    """Logits after the prompt and after two more tokens, where there is room."""
    steps = [session.prefill(prompt, want_logits=True)]
    for position in range(len(prompt), min(len(prompt) + 2, session.info.max_seq_length)):
        steps.append(session.decode(steps[-1].token_id, position, want_logits=True))
    return [step.logits_1V.numpy().tobytes() for step in steps if step.logits_1V is not None]


@pytest.mark.parametrize("chunk", [2, TAIL_STEP, TAIL_STEP + 3, 256])
def test_a_tail_is_padded_by_less_than_a_step(chunk: int) -> None:
    """And never beyond a whole chunk; the same size always gives the same shape."""
    for size in range(1, chunk + 1):
        computed = chunk_tokens(size, chunk)
        assert size <= computed <= min(chunk, size + TAIL_STEP - 1)
        assert computed == chunk or computed % TAIL_STEP == 0
