"""Each patch against the module it replaces, and whole patched models against plain ones."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from rdu_batch.sessions.inductor.cache import in_place_cache
from rdu_batch.sessions.inductor.export import Graph
from rdu_batch.sessions.inductor.geometry import cache_shape_of
from rdu_batch.sessions.inductor.patches import (
    ChunkProduct,
    Fp32LayerNorm,
    RowProduct,
    patch_model,
    transposed_weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize("bias", [True, False])
def test_a_row_product_is_a_linear_of_one_row(bias: bool) -> None:
    """In fp32, up to the order of sums."""
    linear = nn.Linear(96, 40, bias=bias)
    x = torch.randn(1, 1, 96)
    patched = RowProduct(linear.weight, linear.bias)
    torch.testing.assert_close(patched(x), linear(x))


def test_a_row_product_of_bf16_weights_is_nearer_to_fp32_than_bf16_is() -> None:
    """The reference has the same bf16 weights and does everything else in fp64."""
    linear = nn.Linear(512, 256).bfloat16()
    x = torch.randn(1, 1, 512)
    exact = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    ours = (RowProduct(linear.weight, linear.bias)(x) - exact).abs().max()
    plain = (linear(x.bfloat16()) - exact).abs().max()
    assert ours < 1e-5 < plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chunk_product_is_a_linear(dtype: torch.dtype) -> None:
    """In fp32 the same; in bf16 with a bias that is not rounded once more."""
    linear = nn.Linear(96, 40).to(dtype)
    x = torch.randn(1, 16, 96)
    found = ChunkProduct(linear.weight, linear.bias)(x)
    assert found.dtype == torch.float32
    exact = nn.functional.linear(
        x.to(dtype).double(), linear.weight.double(), linear.bias.double()
    ).float()
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("form", ["row", "chunk"])
def test_a_conv1d_is_a_linear_with_transposed_weights(form: Any) -> None:
    """X W + b = (W^T) x + b."""

    class Holder(nn.Module):
        """The least that patch_model asks of a model."""

        def __init__(self) -> None:
            super().__init__()
            self.config = type("Config", (), {})()
            self.inner = Conv1D(24, 32)
            self.inner.bias.data.normal_()

        def get_output_embeddings(self) -> None:
            return None

    holder = Holder()
    x = torch.randn(1, 1, 32)
    wanted = holder.inner(x)
    assert transposed_weights(holder) == {"inner.weight"}
    patched = patch_model(holder, form)
    assert patched.inner.weight.shape == (24, 32)
    torch.testing.assert_close(patched.inner(x), wanted)


@pytest.mark.parametrize("bias", [True, False])
def test_an_fp32_layer_norm_is_a_layer_norm(bias: bool) -> None:
    """Exactly, with weights widened from bf16."""
    norm = nn.LayerNorm(48, eps=1e-3, bias=bias).bfloat16()
    norm.weight.data.normal_()
    x = torch.randn(1, 5, 48)
    assert Fp32LayerNorm(norm)(x).equal(copy.deepcopy(norm).float()(x))


def test_the_cache_writes_at_positions_and_reads_from_the_start() -> None:
    """In the tensors it was given, in their own type."""
    keys, values = torch.zeros(1, 2, 8, 4).bfloat16(), torch.zeros(1, 2, 8, 4).bfloat16()
    new = torch.randn(1, 2, 3, 4)
    cache = in_place_cache([keys], [values], torch.tensor([2, 3, 4]), 5)
    found_keys, found_values = cache.update(new, -new, 0)
    assert keys[:, :, 2:5].equal(new.bfloat16())
    assert values[:, :, 2:5].equal(-new.bfloat16())
    assert not keys[:, :, :2].any()
    assert not keys[:, :, 5:].any()
    assert found_keys.equal(keys[:, :, :5])
    assert found_values.data_ptr() == values.data_ptr()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_patched_model_computes_what_the_plain_one_does(
    family: str, tiny_checkpoint: Callable[[str], Path]
) -> None:
    """Prefill in two chunks, then decode; transformers without a cache is the oracle."""
    plain = AutoModelForCausalLM.from_pretrained(tiny_checkpoint(family)).eval()
    ids = torch.randint(0, plain.config.vocab_size, (1, 14))
    with torch.no_grad():
        wanted = plain(ids).logits[0]
    shape = cache_shape_of(plain.config)
    keys, values = shape.zeros(24, torch.float32), shape.zeros(24, torch.float32)
    chunk = Graph(patch_model(copy.deepcopy(plain), "chunk"), 63)
    row = Graph(patch_model(copy.deepcopy(plain), "row"), 63)
    calls = [(chunk, 0, 5), (chunk, 5, 10), *((row, start, start + 1) for start in range(10, 14))]
    for graph, start, end in calls:
        mask = torch.zeros(1, 1, end - start, end)
        scored = torch.tensor([end - start - 1])
        with torch.no_grad():
            token, logits = graph(
                ids[:, start:end], torch.arange(start, end), mask, scored, keys, values
            )
        torch.testing.assert_close(logits[0], wanted[end - 1], rtol=1e-4, atol=1e-4)
        assert token.item() == wanted[end - 1].argmax().item()
