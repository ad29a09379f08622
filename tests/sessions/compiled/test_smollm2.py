"""SmolLM2-135M from its GGUF file, compiled: the tokens of transformers, and its accuracy."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rdu_batch.job.prompt import Prompt
from rdu_batch.sessions.eager import EagerSession
from rdu_batch.sessions.inductor.session import InductorSession
from rdu_batch.sessions.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.door import Session

pytestmark = [pytest.mark.slow, pytest.mark.all_only]

OPENINGS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "Review: The battery died after two days.\nSentiment:",
    "Q: What is the boiling point of water?\nA:",
    "In 1969, the first",
    "1, 1, 2, 3, 5, 8,",
    "Grüße aus München! Das Wetter ist heute",
    "import numpy as np\n\nx = np.",
    "Dear Sir or Madam,\n\nI am writing to",
    "The three primary colours are",
    "Photosynthesis is the process by which",
    "She opened the door and",
    "To be, or not to be,",
    "A recipe for pancakes: first,",
    "The quick brown fox",
    "SELECT name, age FROM",
    "According to the report, sales in the second quarter",
]


@pytest.fixture(scope="module")
def first_layers(
    smollm2_gguf: Path, smollm2_plain: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """Writes a checkpoint of the model's first layers: real weights, a part of the time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def write(num_layers: int) -> Path:
        folder = tmp_path_factory.mktemp(f"{num_layers}_layers")
        config = copy.deepcopy(smollm2_plain.config)
        config.num_hidden_layers = num_layers
        model = AutoModelForCausalLM.from_config(config)
        model.load_state_dict(smollm2_plain.state_dict(), strict=False)
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
        tokenizer.save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="module")
def bf16_of_ten_layers(
    first_layers: Callable[[int], Path], compiled_from: Callable[..., LocalArtifact]
) -> LocalArtifact:
    """Enough layers to see rounding add up."""
    return compiled_from(first_layers(10), dtype="bf16", max_seq_length=192)


def prompts_for(artifact: LocalArtifact) -> list[list[int]]:
    """Twenty prompts: short ones, one of several chunks, and one as chats are rendered."""
    tokenizer = open_tokenizer("inductor", artifact)
    long_text = " ".join(OPENINGS)
    chat = ({"role": "user", "content": "Name a fruit."},)
    texts = [Prompt(text=text, messages=None) for text in [*OPENINGS, long_text]]
    rendered = [Prompt(text=None, messages=chat)]
    return [tokenizer.encode(prompt, date=None) for prompt in [*texts, *rendered]]


@pytest.mark.parametrize("num_layers", [2, pytest.param(None, id="whole, from GGUF")])
def test_fp32_greedy_tokens_are_those_of_transformers(
    num_layers: int | None,
    smollm2_gguf: Path,
    smollm2_plain: Any,
    first_layers: Callable[[int], Path],
    compiled_from: Callable[..., LocalArtifact],
    assert_same_greedy_tokens: Callable[..., int],
) -> None:
    """Twenty prompts, through prefill of one and of several chunks, and decode."""
    from transformers import AutoModelForCausalLM

    place, plain = smollm2_gguf, smollm2_plain
    if num_layers is not None:
        place = first_layers(num_layers)
        plain = AutoModelForCausalLM.from_pretrained(place).eval()
    local = compiled_from(place, dtype="fp32", max_seq_length=256, prefill_chunk=64)
    prompts = prompts_for(local)
    assert len(prompts) == 20
    assert max(map(len, prompts)) > 2 * local.artifact.prefill_chunk
    session = InductorSession.open(local, threads=1)
    num_ties = assert_same_greedy_tokens(session, plain, prompts, num_tokens=12)
    session.close()
    assert num_ties <= 3


def test_bf16_logits_are_no_farther_from_fp32_than_plain_bf16(
    bf16_of_ten_layers: LocalArtifact,
) -> None:
    """Same bf16 weights in all three; after the prompt, and after five forced tokens."""
    prompts = prompts_for(bf16_of_ten_layers)

    def logits_of(session: Session) -> torch.Tensor:
        found = []
        for ids in prompts:
            steps = [session.prefill(ids, want_logits=True)]
            steps += [
                session.decode(ids[offset], len(ids) + offset, want_logits=True)
                for offset in range(min(5, len(ids)))
            ]
            found += [step.logits_1V for step in steps if step.logits_1V is not None]
        session.close()
        return torch.cat(found)

    exact = logits_of(EagerSession.open_fp32(bf16_of_ten_layers, threads=2))
    plain = logits_of(EagerSession.open(bf16_of_ten_layers, threads=2))
    compiled = logits_of(InductorSession.open(bf16_of_ten_layers, threads=2))
    plain_distance = (plain - exact).abs().mean().item()
    compiled_distance = (compiled - exact).abs().mean().item()
    print(f"mean distance from fp32: compiled {compiled_distance:.4f}, plain {plain_distance:.4f}")  # noqa: T201
    assert 0 < compiled_distance <= plain_distance
