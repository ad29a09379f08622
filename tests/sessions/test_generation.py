"""Rows through a model, its tokenizer and the loop: transformers' generate is the oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rdu_batch.job.prompt import Prompt
from rdu_batch.job.spec import GenerationSpec
from rdu_batch.sessions.decode_loop import FinishReason, generate
from rdu_batch.sessions.registry import open_session
from rdu_batch.sessions.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

MAX_NEW_TOKENS = 12


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_greedy_generation_equals_transformers_generate(
    kind: str,
    family: str,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    tiny_checkpoint: Callable[[str], Path],
) -> None:
    """Texts and chats, with the checkpoint's own tokenizer, in fp32."""
    artifact = tiny_artifact(kind, family)
    session = open_session(kind, artifact, threads=1)
    tokenizer = open_tokenizer(kind, artifact, chat=True)
    generation = GenerationSpec(max_new_tokens=MAX_NEW_TOKENS)
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint(family)).eval()
    oracle = AutoTokenizer.from_pretrained(tiny_checkpoint(family))
    contents = ["one two", "the lazy dog", "Grüße", "a", "seven eight nine ten"]
    prompts = [Prompt(content, None) for content in contents]
    prompts += [Prompt(None, ({"role": "user", "content": content},)) for content in contents[:2]]
    for prompt in prompts:
        ids = tokenizer.encode(prompt, date=None)
        found = generate(session, tokenizer, ids, generation, row_seed=0)
        with torch.inference_mode():
            output = model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones((1, len(ids)), dtype=torch.long),
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=0,
            )[0, len(ids) :].tolist()
        assert list(found.token_ids) == output
        ended = output[-1] == oracle.eos_token_id
        assert found.finish_reason is (FinishReason.EOS if ended else FinishReason.LENGTH)
        text = oracle.decode(output, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert found.text.rstrip("\ufffd") == text.rstrip("\ufffd")
    session.close()
