"""Prompts continued in this process, against transformers' own generate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rdu_batch.errors import InputError
from rdu_batch.sessions.artifact import LocalArtifact
from rdu_batch.sessions.continuing import continued

PROMPTS = [("a:1", "The quick brown"), ("a:2", "naïve café"), ("b:1", "")]


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Callable[[str, str], LocalArtifact]) -> LocalArtifact:
    """The tiny Llama, 48 positions; its tokenizer begins each prompt with a special token."""
    return tiny_artifact("eager", "llama")


@pytest.mark.parametrize("max_new_tokens", [5, 1000])
def test_texts_are_those_of_prompt_and_generated_tokens_with_special_ones(
    artifact: LocalArtifact, tiny_checkpoint: Callable[[str], Path], max_new_tokens: int
) -> None:
    """As ``generate`` and ``decode`` of transformers make them; the end is the session's length."""
    folder = tiny_checkpoint("llama")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = []
    for _, prompt in PROMPTS:
        ids_1S = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            made_1N = model.generate(
                ids_1S,
                attention_mask=torch.ones_like(ids_1S),
                max_length=min(48, ids_1S.shape[-1] + max_new_tokens),
                do_sample=False,
                use_cache=False,
            )
        wanted.append(tokenizer.decode(made_1N.squeeze(0)))
    said: list[str] = []
    found = continued(
        artifact,
        PROMPTS,
        kind="eager",
        max_new_tokens=max_new_tokens,
        threads=1,
        on_progress=said.append,
    )
    assert list(found) == wanted
    assert all(text.startswith("<|bos|>") for text in wanted)
    assert [line.partition(":")[0] for line in said] == ["1 of 3", "2 of 3", "3 of 3"]


def test_prompts_that_cannot_be_continued_are_all_named_before_the_first_is(
    artifact: LocalArtifact,
) -> None:
    """With their places; a list that is too long is cut."""
    long = [(f"rows:{number}", "z " * 60) for number in range(12)]
    texts = continued(artifact, [*PROMPTS, *long], kind="eager", max_new_tokens=1, threads=1)
    with pytest.raises(InputError) as caught:
        next(texts)
    lines = str(caught.value).splitlines()
    assert lines[0] == "nothing was generated:"
    assert lines[1].startswith("rows:0: prompt_too_long: ")
    assert lines[-1] == "and 4 more"
