"""int8 weights from end to end: what they stand for, what they compute, and what they cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rdu_batch.sessions.eager import EagerSession
from rdu_batch.sessions.inductor.geometry import WEIGHTS_FILE
from rdu_batch.sessions.inductor.session import InductorSession
from rdu_batch.sessions.perplexity import NUM_TOKENS, documentation_windows, num_scored
from rdu_batch.sessions.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.door import Session

#: What int8 products compute is tested in test_row_kernels.py, in every run.
pytestmark = [pytest.mark.slow, pytest.mark.all_only]

FAMILIES = pytest.mark.parametrize("family", ["llama", "gpt2"])
NUM_STEPS = 30


@pytest.fixture(scope="module")
def int8_artifact(
    tiny_checkpoint: Callable[[str], Path], compiled_from: Callable[..., LocalArtifact]
) -> Callable[[str], LocalArtifact]:
    """Compiles a tiny model with int8 weights, once each."""
    made: dict[str, LocalArtifact] = {}

    def make(family: str) -> LocalArtifact:
        if family not in made:
            settings = {"dtype": "fp32", "weights": "int8", "prefill_chunk": 16}
            made[family] = compiled_from(tiny_checkpoint(family), max_seq_length=64, **settings)
        return made[family]

    return make


def steps_of(session: Session) -> Iterator[Any]:
    """Logits after a prompt of more than one chunk, then token by token, always the same ids."""
    ids = [(11 * index * index + 5) % session.info.vocab_size for index in range(20 + NUM_STEPS)]
    yield session.prefill(ids[:20], want_logits=True).logits_1V
    for position in range(20, len(ids)):
        yield session.decode(ids[position], position, want_logits=True).logits_1V
    session.close()


@FAMILIES
def test_compiled_logits_are_those_of_the_weights_that_int8_stands_for(
    family: str, int8_artifact: Callable[[str], LocalArtifact]
) -> None:
    """Plain transformers over the dequantised weights; only activations are rounded besides."""
    local = int8_artifact(family)
    plain = torch.cat(list(steps_of(EagerSession.open(local, threads=1))))
    compiled = torch.cat(list(steps_of(InductorSession.open(local, threads=1))))
    distance = (compiled - plain).abs().amax() / plain.std()
    assert distance < 1e-2
    sure = plain.topk(2).values.diff().abs()[:, 0] > 2 * (compiled - plain).abs().amax()
    assert sure.sum() > NUM_STEPS // 2
    assert torch.equal(compiled.argmax(-1)[sure], plain.argmax(-1)[sure])


def test_two_threads_compute_what_one_does(
    int8_artifact: Callable[[str], LocalArtifact],
) -> None:
    """One thread reads two rows at a time, several one. Prefill's products may differ by a bit."""
    local = int8_artifact("llama")
    one = torch.cat(list(steps_of(InductorSession.open(local, threads=1)))[1:])
    two = torch.cat(list(steps_of(InductorSession.open(local, threads=2)))[1:])
    torch.set_num_threads(1)
    assert (one - two).abs().amax() < 1e-4 * one.std()


@FAMILIES
def test_each_number_is_the_nearest_one_and_takes_one_byte(
    family: str,
    int8_artifact: Callable[[str], LocalArtifact],
    tiny_checkpoint: Callable[[str], Path],
) -> None:
    """Against the checkpoint's own tensors, output by output; what is not int8 is unchanged."""
    local = int8_artifact(family)
    held = load_file(local.path(WEIGHTS_FILE))
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint(family))
    plain = dict(model.state_dict())
    numbers = {name for name, layout in local.artifact.layouts.items() if "int8" in layout}
    matrices = {name for name, tensor in plain.items() if tensor.dim() == 2 and "proj" in name}
    assert numbers >= matrices
    for name in numbers:
        weight_OI = plain[name]
        if "transposed" in local.artifact.layouts[name]:
            weight_OI = weight_OI.t()
        assert held[name].dtype == torch.int8
        scale_O = held[f"{name}_scale"]
        error_OI = (held[name].float() * scale_O[:, None] - weight_OI).abs()
        assert bool((error_OI <= 0.5001 * scale_O[:, None]).all())
        assert bool((held[name].abs().amax(-1) == 127).all())


def test_the_artifact_keeps_what_int8_costs(
    int8_artifact: Callable[[str], LocalArtifact],
    tiny_artifact: Callable[[str, str], LocalArtifact],
    tiny_checkpoint: Callable[[str], Path],
) -> None:
    """The plain perplexity is transformers' own on the same windows; plain artifacts have none."""
    local = int8_artifact("llama")
    quality = local.artifact.quality
    windows = documentation_windows(open_tokenizer("inductor", local), local.artifact)
    assert quality["num_tokens"] == num_scored(windows) == NUM_TOKENS
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint("llama")).eval()
    surprise = 0.0
    for window in windows:
        ids = torch.tensor([window.ids])
        with torch.no_grad():
            chances = model(ids).logits[0].log_softmax(-1)
        for position in range(window.num_context, len(window.ids)):
            surprise -= float(chances[position - 1, window.ids[position]])
    assert quality["plain_perplexity"] == pytest.approx(math.exp(surprise / NUM_TOKENS), rel=1e-3)
    assert quality["perplexity"] == pytest.approx(quality["plain_perplexity"], rel=0.05)
    assert tiny_artifact("inductor", "llama").artifact.quality == {}


def test_smollm2_loses_less_than_one_percent_of_perplexity(
    smollm2_gguf: Path, compiled_from: Callable[..., LocalArtifact]
) -> None:
    """The whole model, over Python's documentation."""
    local = compiled_from(smollm2_gguf, dtype="bf16", weights="int8", max_seq_length=256)
    quality = local.artifact.quality
    assert quality["perplexity"] / quality["plain_perplexity"] < 1.01
