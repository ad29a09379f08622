"""Attention and masks of the graphs, against torch's and transformers' own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers.masking_utils import (
    causal_mask_function,
    chunked_causal_mask_function,
    eager_mask,
    sliding_window_causal_mask_function,
)

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.inductor.attention import additive_mask, grouped_attention, window_of
from rdu_batch.sessions.inductor.cache import in_place_cache


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize("num_tokens", [1, 6])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 8])
def test_grouped_attention_is_attention_with_repeated_heads(
    num_tokens: int, num_kv_heads: int
) -> None:
    """Torch's own attention over repeated heads is the oracle; values may have a size of theirs."""
    num_heads, head_size, value_size, num_positions = 8, 16, 12, 21
    query = torch.randn(1, num_heads, num_tokens, head_size)
    key = torch.randn(1, num_kv_heads, num_positions, head_size)
    value = torch.randn(1, num_kv_heads, num_positions, value_size)
    mask = torch.zeros(1, 1, num_tokens, num_positions)
    mask.masked_fill_(torch.rand_like(mask) < 0.3, float("-inf"))
    mask[..., 0] = 0.0
    found, _ = grouped_attention(nn.Module(), query, key, value, mask, scaling=0.3)
    repeats = num_heads // num_kv_heads
    wanted = nn.functional.scaled_dot_product_attention(
        query,
        key.repeat_interleave(repeats, 1),
        value.repeat_interleave(repeats, 1),
        attn_mask=mask,
        scale=0.3,
    )
    torch.testing.assert_close(found, wanted.transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_a_softcap_bends_scores_before_the_mask() -> None:
    """Written out in fp64; without the cap the result is another one."""
    query, key, value = (torch.randn(1, 1, 4, 8, dtype=torch.float64) * 3 for _ in range(3))
    mask = torch.full((1, 1, 4, 4), float("-inf")).triu(1)
    arguments = [tensor.float() for tensor in (query, key, value)]
    found, _ = grouped_attention(nn.Module(), *arguments, mask, scaling=1.0, softcap=5.0)
    scores = 5.0 * torch.tanh((query @ key.transpose(2, 3)) / 5.0)
    wanted = (torch.softmax(scores + mask, -1) @ value).transpose(1, 2).float()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    uncapped, _ = grouped_attention(nn.Module(), *arguments, mask, scaling=1.0)
    assert (uncapped - found).abs().max() > 0.1


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ({"dropout": 0.1}, "dropout"),
        ({"s_aux": torch.zeros(2)}, "s_aux"),
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"what_nobody_knows": True}, "what_nobody_knows"),
    ],
)
def test_attention_of_another_kind_is_refused(variant: dict[str, Any], said: str) -> None:
    """Rather than computed without it; an argument that is None asks for nothing."""
    states = torch.zeros(1, 2, 1, 4)
    mask = torch.zeros(1, 1, 1, 1)
    grouped_attention(nn.Module(), states, states, states, mask, s_aux=None, is_causal=True)
    with pytest.raises(ArtifactError, match=said):
        grouped_attention(nn.Module(), states, states, states, mask, **variant)


def test_attention_without_a_mask_is_refused() -> None:
    """Only models that are no decoders leave it out."""
    states = torch.zeros(1, 2, 1, 4)
    with pytest.raises(ArtifactError, match="no mask"):
        grouped_attention(nn.Module(), states, states, states, None)


@pytest.mark.parametrize(("start", "num_tokens"), [(0, 5), (3, 5), (9, 1), (0, 1)])
@pytest.mark.parametrize("rule", ["causal", "sliding", "chunked"])
def test_a_mask_is_the_one_that_transformers_makes(rule: str, start: int, num_tokens: int) -> None:
    """By the same rule, with the offset as a tensor of the cache; and it carries its window."""
    functions = {
        "causal": (causal_mask_function, None, None),
        "sliding": (sliding_window_causal_mask_function(4), 4, None),
        "chunked": (chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.long)), 4, 4),
    }
    function, local_size, chunk_size = functions[rule]
    config = SimpleNamespace(attention_chunk_size=chunk_size)
    end = start + num_tokens
    tensors = [torch.zeros(1, 1, 16, 8)]
    cache = in_place_cache(tensors, tensors, torch.arange(start, end), end)
    asked = {
        "q_length": num_tokens,
        "kv_length": cache.get_mask_sizes(num_tokens, 0)[0],
        "mask_function": function,
        "local_size": local_size,
        "config": config,
    }
    found = additive_mask(q_offset=cache.get_query_offset(0), **asked)
    wanted = eager_mask(batch_size=1, q_offset=start, **asked)
    assert found.shape == (1, 1, num_tokens, end)
    assert (found == 0).equal(wanted == 0)
    assert found.isneginf().equal(wanted != 0)
    assert window_of(found) == {"causal": 0, "sliding": 4, "chunked": None}[rule]
    assert cache.get_seq_length() == start


def test_a_window_says_which_positions_one_token_sees() -> None:
    """What a decode kernel is told instead of a mask."""
    for position in range(12):
        asked: dict[str, Any] = {"q_length": 1, "kv_length": position + 1}
        offset = torch.tensor(position)
        for window in (0, 1, 5, 64):
            function = sliding_window_causal_mask_function(window) if window else None
            mask = additive_mask(
                q_offset=offset,
                mask_function=function or causal_mask_function,
                local_size=window or None,
                **asked,
            )
            first = max(0, position + 1 - window) if window_of(mask) else 0
            seen = (mask[0, 0, 0] == 0).nonzero().flatten().tolist()
            assert seen == list(range(first, position + 1))


def test_a_mask_by_a_rule_of_the_models_own_is_refused() -> None:
    """Transformers says so by asking for vmap."""
    with pytest.raises(ArtifactError, match="rule of its own"):
        additive_mask(
            q_length=1,
            kv_length=1,
            q_offset=torch.tensor(0),
            mask_function=causal_mask_function,
            use_vmap=True,
        )


def test_a_cache_that_a_model_passes_by_is_refused() -> None:
    """A layer that was not written, and one that was written twice."""
    new = torch.randn(1, 2, 1, 4)
    for written in ([0], [0, 1, 1]):
        tensors = [torch.zeros(1, 2, 8, 4) for _ in range(4)]
        cache = in_place_cache(tensors[:2], tensors[2:], torch.tensor([3]), 4)
        for layer in written:
            cache.update(new, new, layer)
        with pytest.raises(ArtifactError, match="its layer 1 "):
            cache.check_used()


@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (1, 2, 1, 8)])
def test_heads_that_the_config_did_not_tell_are_refused(shape: tuple[int, ...]) -> None:
    """One key/value head would be spread over two without a word."""
    cache = in_place_cache([torch.zeros(1, 2, 8, 4)], [torch.zeros(1, 2, 8, 4)], torch.arange(1), 1)
    with pytest.raises(ArtifactError, match="config says 2 of 4"):
        cache.update(torch.zeros(shape), torch.zeros(shape), 0)
