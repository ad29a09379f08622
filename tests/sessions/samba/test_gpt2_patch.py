"""GPT-2 as the RDU gets it, computed by torch, against transformers' own model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.samba.gpt2_patch import patch_gpt2

if TYPE_CHECKING:
    from torch import Tensor

SETTINGS = {
    "vocab_size": 97,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 24,
    "initializer_range": 0.3,
    "attn_implementation": "eager",
}


def addmm(bias: Tensor, x: Tensor, weight: Tensor, *, is_transposed: bool) -> Tensor:
    """What the documents say of ``samba.addmm``."""
    return torch.addmm(bias, x, weight.t() if is_transposed else weight)


def gpt2(**settings: Any) -> Any:
    """A tiny GPT-2, the same weights each time."""
    torch.manual_seed(3)
    return GPT2LMHeadModel(GPT2Config(**{**SETTINGS, **settings})).eval()


def patched(**settings: Any) -> Any:
    return patch_gpt2(gpt2(**settings), addmm=addmm, op_fusion=lambda _block, _name: None)


def arguments(ids: list[int], length: int, *, pad_id: int = 0) -> tuple[Any, ...]:
    """The eight arguments of the tutorial; torch's own embedding wants positions of 32 bits."""
    ids_1L = torch.tensor([ids + [pad_id] * (length - len(ids))], dtype=torch.int32)
    mask_1L = torch.tensor([[1.0] * len(ids) + [0.0] * (length - len(ids))])
    positions_1L = torch.arange(length, dtype=torch.int32)[None]
    return ids_1L, None, mask_1L[:, None, :], None, positions_1L, None, None, None


IDS = [5, 90, 17, 3, 44, 8, 61]


@torch.no_grad()
@pytest.mark.parametrize("length", [7, 16, 24])
@pytest.mark.parametrize(
    "settings", [{}, {"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}]
)
def test_a_patched_model_is_a_plain_one_with_the_exact_gelu(
    length: int, settings: dict[str, Any]
) -> None:
    """In transformers' words: ``"activation_function": "gelu"``; whatever the padding."""
    plain = gpt2(**settings, activation_function="gelu")
    wanted = plain(torch.tensor([IDS])).logits
    (logits_1LV,) = patched(**settings)(*arguments(IDS, length))
    assert logits_1LV.shape == (1, length, 97)
    torch.testing.assert_close(logits_1LV[:, : len(IDS)], wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_it_is_another_model_than_the_one_with_gelu_new() -> None:
    """By what the two activations differ: at most 0.0005 at any x, so a little in each logit."""
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    apart = (nn.GELU()(x) - nn.GELU(approximate="tanh")(x)).abs().max()
    assert 0.0004 < apart < 0.0005
    (logits_1LV,) = patched()(*arguments(IDS, 7))
    difference = (logits_1LV - gpt2()(torch.tensor([IDS])).logits).abs().max()
    assert 1e-4 < difference < 0.1


@torch.no_grad()
def test_what_stands_behind_the_tokens_changes_no_logit_before_it() -> None:
    """Neither the padding's ids nor its mask."""
    model = patched()
    (wanted,) = model(*arguments(IDS, 20))
    ids_1L, _, mask_11L, _, positions_1L, *_ = arguments(IDS, 20, pad_id=77)
    for mask in (mask_11L, torch.ones_like(mask_11L)):
        (found,) = model(ids_1L, None, mask, None, positions_1L, None, None, None)
        assert found[:, : len(IDS)].equal(wanted[:, : len(IDS)])


@torch.no_grad()
def test_the_weights_of_products_lie_transposed_and_no_other() -> None:
    """Those of Conv1D, the square one too; a tied head stays tied."""
    plain, model = gpt2().state_dict(), patched()
    turned = {name for name, tensor in model.state_dict().items() if not tensor.equal(plain[name])}
    assert turned == {
        f"transformer.h.{block}.{name}.weight"
        for block in range(3)
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert all(model.state_dict()[name].equal(plain[name].t()) for name in turned)
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()


@torch.no_grad()
def test_another_model_of_the_class_stays_as_it_was() -> None:
    """A patch changes the one model it is given."""
    wanted = gpt2()(torch.tensor([IDS])).logits
    patched()
    other = copy.deepcopy(gpt2())
    assert other(torch.tensor([IDS])).logits.equal(wanted)


def test_flags_and_sections_are_those_of_the_tutorial() -> None:
    """Each block becomes one section."""
    sections: list[tuple[Any, str]] = []
    model = patch_gpt2(gpt2(), addmm=addmm, op_fusion=lambda *given: sections.append(given))
    assert (model.return_logits, model.no_index_select_patch, model.return_cache) == (
        *(True, True),
        False,
    )
    assert sections == [(block, "Encoder") for block in model.transformer.h]
    assert model.transformer.h[0].attn.bias.shape == (1, 1, 24, 24)


def test_an_argument_that_inference_leaves_out_is_refused() -> None:
    """It would be ignored otherwise."""
    ids_1L, _, mask_11L, _, positions_1L, *_ = arguments(IDS, 7)
    with pytest.raises(ValueError, match="input_ids, attention_mask and position_ids alone"):
        patched()(ids_1L, None, mask_11L, ids_1L, positions_1L, None, None, None)


def test_a_model_that_the_patch_does_not_know_is_refused() -> None:
    """Naming what it is, and what to do."""
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with pytest.raises(ArtifactError, match=r"llama: kind samba has a patch for gpt2 alone.*eager"):
        patch_gpt2(llama, addmm=addmm, op_fusion=lambda *_: None)
    with pytest.raises(ArtifactError, match="gpt2 with reorder_and_upcast_attn"):
        patched(reorder_and_upcast_attn=True)
