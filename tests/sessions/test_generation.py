"""Rows through a model, its tokenizer and the loop: transformers' generate is the oracle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rdu_batch.cli.main import run
from rdu_batch.job.prompt import Prompt
from rdu_batch.job.spec import GenerationSpec
from rdu_batch.sessions.decode_loop import FinishReason, generate
from rdu_batch.sessions.registry import open_session
from rdu_batch.sessions.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.tokenizer import PromptTokenizer

MAX_NEW_TOKENS = 12
CONTENTS = ["one two", "the lazy dog", "Grüße", "a", "seven eight nine ten"]


def oracle_ids(model: Any, prompt_ids: list[int], **settings: Any) -> list[int]:
    """What transformers' own greedy generate makes of a prompt."""
    with torch.inference_mode():
        output = model.generate(
            torch.tensor([prompt_ids]),
            attention_mask=torch.ones((1, len(prompt_ids)), dtype=torch.long),
            do_sample=False,
            pad_token_id=0,
            **{"max_new_tokens": MAX_NEW_TOKENS} | settings,
        )
    ids: list[int] = output[0, len(prompt_ids) :].tolist()
    return ids


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
    prompts = [Prompt(content, None) for content in CONTENTS]
    prompts += [Prompt(None, ({"role": "user", "content": content},)) for content in CONTENTS[:2]]
    for prompt in prompts:
        ids = tokenizer.encode(prompt, date=None)
        found = generate(session, tokenizer, ids, generation, row_seed=0)
        output = oracle_ids(model, ids)
        assert list(found.token_ids) == output
        ended = output[-1] == oracle.eos_token_id
        assert found.finish_reason is (FinishReason.EOS if ended else FinishReason.LENGTH)
        text = oracle.decode(output, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert found.text.rstrip("\ufffd") == text.rstrip("\ufffd")
    session.close()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.7, "max_new_tokens": 20},
        {"repetition_penalty": 1.1, "min_new_tokens": 10},
        {"min_new_tokens": MAX_NEW_TOKENS},
    ],
)
def test_penalties_and_least_lengths_equal_transformers_generate(
    settings: dict[str, Any],
    family: str,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    tiny_checkpoint: Callable[[str], Path],
) -> None:
    """Token by token, with an eos that the model does like to choose."""
    artifact = tiny_artifact("eager", family)
    session = open_session("eager", artifact, threads=1)
    tokenizer = open_tokenizer("eager", artifact)
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint(family)).eval()
    generation = GenerationSpec(**{"max_new_tokens": MAX_NEW_TOKENS} | settings)
    num_changed = 0
    for content in CONTENTS:
        ids = tokenizer.encode(Prompt(content, None), date=None)
        # The sixth token that the model would choose becomes its eos.
        eos_token_id = oracle_ids(model, ids)[:6][-1]
        plain = oracle_ids(model, ids, eos_token_id=eos_token_id)
        wanted = oracle_ids(model, ids, eos_token_id=eos_token_id, **settings)
        num_changed += wanted != plain
        found = generate(session, WithEos(tokenizer, eos_token_id), ids, generation, row_seed=0)
        assert list(found.token_ids) == wanted
        ended = wanted[-1] == eos_token_id
        assert found.finish_reason is (FinishReason.EOS if ended else FinishReason.LENGTH)
    assert num_changed
    session.close()


class WithEos:
    """A tokenizer with another eos."""

    def __init__(self, tokenizer: PromptTokenizer, eos_token_id: int) -> None:
        self.encode = tokenizer.encode
        self.decode = tokenizer.decode
        self.eos_token_ids = frozenset({eos_token_id})


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_log_probabilities_equal_those_of_the_model(
    family: str,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    tiny_checkpoint: Callable[[str], Path],
) -> None:
    """One forward over prompt and prediction gives the same, whatever the row was sampled with."""
    artifact = tiny_artifact("eager", family)
    session = open_session("eager", artifact, threads=1)
    tokenizer = open_tokenizer("eager", artifact)
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint(family)).eval()
    generation = GenerationSpec(
        max_new_tokens=8, temperature=1.5, top_k=20, repetition_penalty=1.2, logprobs=True
    )
    for seed, content in enumerate(CONTENTS):
        ids = tokenizer.encode(Prompt(content, None), date=None)
        found = generate(session, tokenizer, ids, generation, row_seed=seed)
        whole = [*ids, *found.token_ids]
        with torch.inference_mode():
            logprobs_SV = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        wanted = [float(logprobs_SV[at - 1, whole[at]]) for at in range(len(ids), len(whole))]
        assert found.logprobs == pytest.approx(wanted, abs=1e-4)
    session.close()


def test_a_sampled_job_of_a_real_model_is_the_same_in_any_shards(
    tmp_path: Path, tiny_artifact: Callable[[str, str], LocalArtifact]
) -> None:
    """Samples, log-probabilities, a row's own settings and an empty prompt, from file to file."""
    rows: list[dict[str, Any]] = [{"text": content} for content in [*CONTENTS, ""]]
    rows[1]["own"] = {"max_new_tokens": 3, "min_new_tokens": 3, "temperature": 2, "seed": 5}
    rows[2]["own"] = {"temperature": "hot"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    generation = {
        "max_new_tokens": 6,
        "temperature": 0.9,
        "top_k": 50,
        "min_p": 0.001,
        "repetition_penalty": 1.2,
        "num_samples": 3,
        "logprobs": True,
        "overrides_field": "own",
    }
    written = []
    for rows_per_shard in (6, 2):
        output = tmp_path / f"out-{rows_per_shard}"
        job = {
            "version": 1,
            "name": "samples",
            "prompt": {"field": "text"},
            "input": {"urls": [str(tmp_path / "rows.jsonl")]},
            "session": {"kind": "eager", "artifact": str(tiny_artifact("eager", "llama").folder)},
            "generation": generation,
            "output": {"url": str(output), "rows_per_shard": rows_per_shard},
            "limits": {"max_dead_rows": 1},
        }
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        assert run(["run", str(tmp_path / "job.yaml"), "--executor", "inline"]) == 0
        parts = sorted(output.glob("part-*")) + sorted(output.glob("dead-*"))
        written.append(b"".join(part.read_bytes() for part in parts))
    assert written[0] == written[1]
    *predictions, dead = [json.loads(line) for line in written[0].splitlines()]
    assert (dead["row"], dead["reason"]) == ([0, 3], "bad_override")
    assert [one["num_prompt_tokens"] for one in predictions][-1] == 1
    assert predictions[1]["num_generated_tokens"] == [3, 3, 3]
    assert all(len(one["prediction"]) == 3 for one in predictions)
