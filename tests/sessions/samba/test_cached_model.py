"""What cached graphs are traced from, computed by torch, against transformers' own models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
)

from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.samba.cached_model import CachedModel, check_cachable, patch_cached

if TYPE_CHECKING:
    from torch import Tensor

#: Static length of the prefill, and positions of the cache.
S, M = 8, 20
IDS = [(37 * index * index + 11 * index + 5) % 97 for index in range(M)]


def addmm(bias: Tensor, x: Tensor, weight: Tensor, *, is_transposed: bool) -> Tensor:
    """What the documents say of ``samba.addmm``."""
    return torch.addmm(bias, x, weight.t() if is_transposed else weight)


def plain(family: str, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """A tiny model with tied weights and the exact GELU, the same weights each time."""
    torch.manual_seed(3)
    if family == "gpt2":
        gpt2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 24, **settings}
        model: Any = GPT2LMHeadModel(
            GPT2Config(vocab_size=97, initializer_range=0.3, activation_function="gelu", **gpt2)
        )
    else:
        llama = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, **settings}
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=97,
                num_attention_heads=4,
                num_key_value_heads=2,
                initializer_range=0.3,
                tie_word_embeddings=True,
                **llama,
            )
        )
    return model.to(dtype).eval()


def cached(family: str, dtype: torch.dtype = torch.float32, **settings: Any) -> CachedModel:
    """The same model with a cache of M positions."""
    model = patch_cached(
        plain(family, dtype, **settings),
        max_seq_length=M,
        addmm=addmm,
        op_fusion=lambda _block, _name: None,
    )
    return CachedModel(model, M)


def prefill(model: CachedModel, ids: list[int], length: int, *, pad_id: int = 0) -> Any:
    input_ids_1S = torch.tensor([ids + [pad_id] * (length - len(ids))])
    return model(input_ids_1S, torch.tensor([[len(ids) - 1]]))


def decode(model: CachedModel, ids: list[int], cache: Any) -> Any:
    """Feed the last of ``ids``."""
    mask_1M = (torch.arange(M) < len(ids)).int()[None]
    return model(torch.tensor([ids[-1:]]), torch.tensor([[len(ids) - 1]]), mask_1M, cache)


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gpt2", {}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("llama", {}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    ],
)
def test_prefill_and_decode_give_the_logits_of_the_whole_sequence(
    family: str, settings: dict[str, Any]
) -> None:
    """From prompts about the static length, and each further token up to the last position."""
    wanted_MV = plain(family, **settings)(torch.tensor([IDS])).logits[0]
    model = cached(family, **settings)
    for num_tokens, length in ((1, S), (S - 1, S), (S, S), (S + 1, M), (M - 1, M)):
        logits_11V, cache = prefill(model, IDS[:num_tokens], length)
        assert logits_11V.shape == (1, 1, 97)
        torch.testing.assert_close(logits_11V[0, 0], wanted_MV[num_tokens - 1], atol=2e-5, rtol=0)
        for end in range(num_tokens + 1, M + 1):
            logits_11V, cache = decode(model, IDS[:end], cache)
            torch.testing.assert_close(logits_11V[0, 0], wanted_MV[end - 1], atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_nothing_behind_the_last_token_changes_a_logit(family: str) -> None:
    """Neither the padding's ids, nor what an earlier row left in the cache."""
    model = cached(family)
    logits_11V, cache = prefill(model, IDS[:5], S)
    others_11V, other_cache = prefill(model, IDS[:5], S, pad_id=77)
    assert others_11V.equal(logits_11V)
    assert not other_cache[0][0].equal(cache[0][0])
    for pair in other_cache:
        for part in pair:
            assert part.shape[2] == M
            part[:, :, S:] = 9.0
    wanted_11V, _ = decode(model, IDS[:6], cache)
    found_11V, _ = decode(model, IDS[:6], other_cache)
    assert found_11V.equal(wanted_11V)


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_bf16_model_has_a_bf16_cache_and_float32_logits(family: str) -> None:
    """The masked scores stay finite: the lowest float32 would be -inf as bf16."""
    wanted_MV = plain(family)(torch.tensor([IDS])).logits[0]
    model = cached(family, torch.bfloat16)
    logits_11V, cache = prefill(model, IDS[:5], S)
    assert {part.dtype for pair in cache for part in pair} == {torch.bfloat16}
    for end in range(6, M + 1):
        assert logits_11V.dtype == torch.float32
        spread = wanted_MV[end - 2].abs().max()
        torch.testing.assert_close(
            logits_11V[0, 0], wanted_MV[end - 2], atol=0.1 * float(spread), rtol=0
        )
        logits_11V, cache = decode(model, IDS[:end], cache)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_weights_are_untied_and_dropout_is_gone(family: str) -> None:
    """SambaFlow shares no weight between modules; a run without it gives no probability."""
    tied = plain(family)
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    model = cached(family).model
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head.data_ptr() != embedding.data_ptr()
    assert head.equal(embedding)
    assert not model.config.tie_word_embeddings
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


def test_a_model_that_no_cache_was_tested_with_is_refused() -> None:
    """Naming what it is, what there is, and what to do."""
    with pytest.raises(ArtifactError, match=r"mistral: .* gpt2 and llama with a cache.*inductor"):
        check_cachable(MistralConfig(), M)
    with pytest.raises(ArtifactError, match="gpt2 with add_cross_attention"):
        check_cachable(GPT2Config(add_cross_attention=True), M)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    config = LlamaConfig(max_position_embeddings=16, rope_parameters=rope)
    check_cachable(config, 16)
    with pytest.raises(UsageError, match=r"behind position 16; use --max_seq_length 16"):
        check_cachable(config, M)
