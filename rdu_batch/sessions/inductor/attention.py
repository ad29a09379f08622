"""Attention of the graphs: which positions a layer sees, and the sums over them.

Promises: the mask is the one that transformers' own modelling code asks for, layer by layer, so a
sliding window is where plain transformers has it; every attention function of a model that goes
through transformers' attention interface is this one. Does not: know families; what it does not
compute is refused by name.

What decides one layer's attention is a scale, a window and a softcap, all plain numbers at export:
with C = 1 and ``window_of(mask)`` not None, query position p sees the positions
max(0, p + 1 - window) .. p (all of 0 .. p without a window), and the mask says nothing more.

Shapes: C tokens of a call, H query heads, J key/value heads, G = H / J, N positions attended to,
D head size, E value size.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.inductor.kernels.ops import HEAD_SIZE_STEP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from rdu_batch.sessions.inductor.kernels.ops import RowOperators

ATTENTION = "rdu_batch_grouped"
#: Where a mask carries its window. It belongs to the mask: layers of one model have different ones.
_WINDOW = "rdu_batch_window"
#: Further arguments of attention functions that change nothing here. ``sliding_window`` and
#: ``is_causal`` repeat what the mask says, for attention functions that take no mask.
_HARMLESS = frozenset(
    (
        *("is_causal", "sliding_window", "position_ids", "use_cache"),
        *("output_attentions", "output_hidden_states", "output_router_logits"),
    )
)


def use_grouped_attention(model: Any, operators: RowOperators | None = None) -> None:
    """Make a transformers model take its masks and its attention from here.

    Both functions are registered with transformers under one name and hold no state; what differs
    from call to call comes with the cache (positions) and with the mask (window).

    Args:
        model: a plain transformers model.
        operators: decode kernels for calls of one token; None does without them.
    """
    name, function = ATTENTION, grouped_attention
    if operators is not None:
        name = f"{ATTENTION}_{operators.suffix}"
        function = partial(one_row_attention, operators)
    ALL_ATTENTION_FUNCTIONS.register(name, function)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, additive_mask)
    model.config._attn_implementation = name  # noqa: SLF001 - transformers' own switch


def additive_mask(
    *,
    q_length: int,
    kv_length: int,
    q_offset: Any,
    mask_function: Any,
    local_size: int | None = None,
    use_vmap: bool = False,
    config: Any = None,
    device: torch.device | None = None,
    **_ignored: Any,
) -> Tensor:
    """The mask [1, 1, C, N] of one kind of layer: 0 where a token attends, -inf where it does not.

    Proof: ``mask_function`` is the rule by which transformers fills its own masks, a function of
    indices alone; here it is asked for the same indices, token i being at ``q_offset + i``.
    Padding does not exist at batch size 1. Every token sees itself, so no row is all -inf.

    Args:
        q_length: C.
        kv_length: N, a symbol during export.
        q_offset: position of the first token; a tensor, because it is only known at run time.
        mask_function: of (batch, head, query position, key position).
        local_size: the window of a sliding layer, or the chunk of a chunked one.
        use_vmap: transformers found a rule of the model's own, which may be no function of indices.
        config: the model's.
        device: of the mask, and of ``q_offset``.

    Raises:
        ArtifactError: the model has a rule of its own.
    """
    if use_vmap:
        raise ArtifactError("its attention mask follows a rule of its own, not causal or sliding")
    queries_C1 = (q_offset + torch.arange(q_length, device=device))[:, None]
    keys_N = torch.arange(kv_length, device=device)
    # The overlays index tensors by batch and head only where there is padding; both are 0 here.
    attends_CN = mask_function(0, 0, queries_C1, keys_N[None])
    mask_11CN = torch.where(attends_CN, 0.0, float("-inf"))[None, None]
    if mask_function is causal_mask_function:
        setattr(mask_11CN, _WINDOW, 0)
    elif local_size is not None and getattr(config, "attention_chunk_size", None) is None:
        setattr(mask_11CN, _WINDOW, int(local_size))
    return mask_11CN


def window_of(mask_11CN: Tensor) -> int | None:
    """The window that a mask of ``additive_mask`` stands for: 0 for all positions up to a token's.

    None where only the mask itself says what is attended to.
    """
    window: int | None = getattr(mask_11CN, _WINDOW, None)
    return window


def one_row_attention(
    operators: RowOperators,
    module: nn.Module,
    query_1H1D: Tensor,
    key_1JND: Tensor,
    value_1JNE: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **variants: Any,
) -> tuple[Tensor, None]:
    """``grouped_attention`` of a call of one token, by a kernel of our own where it can be.

    Proof: for one token a mask says nothing but its window (``window_of``), so the kernel's sums
    over the last positions are the same sums in another order.
    """
    window = None if attention_mask is None else window_of(attention_mask)
    head_size = query_1H1D.shape[-1]
    fits = key_1JND.shape == value_1JNE.shape and head_size % HEAD_SIZE_STEP == 0
    if window is None or not fits or dropout:
        return grouped_attention(
            module,
            query_1H1D,
            key_1JND,
            value_1JNE,
            attention_mask,
            scaling,
            dropout,
            softcap,
            **variants,
        )
    _check_variants(variants)
    scale = head_size**-0.5 if scaling is None else scaling
    query_1H1D = query_1H1D.float().contiguous()
    mixed_11HD: Tensor = operators.attention(
        query_1H1D, key_1JND, value_1JNE, float(scale), window, float(softcap or 0)
    )
    return mixed_11HD, None


def _check_variants(variants: Mapping[str, Any]) -> None:
    unknown = [name for name in variants.keys() - _HARMLESS if variants[name] is not None]
    if unknown:
        raise ArtifactError(f"its attention uses {', '.join(sorted(unknown))}")


def grouped_attention(
    _module: nn.Module,
    query_1HCD: Tensor,
    key_1JND: Tensor,
    value_1JNE: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **variants: Any,
) -> tuple[Tensor, None]:
    """Attention in fp32 that reads each key/value head once for its whole group of query heads.

    Proof: plain attention repeats each key/value head G times and takes softmax(q k^T * s + m) v
    per query head. Head h uses key/value head h // G, so viewing H as (J, G) and broadcasting gives
    the same sums over the same numbers. A softcap c replaces each score x, before the mask is
    added, by c tanh(x / c), as plain attention does. The window is in the mask already.

    ``attention_mask`` is [1, 1, C, N] as ``additive_mask`` makes it; some models pass it by name.
    Returns [1, C, H, E] as the modelling code expects, and no attention weights.

    Raises:
        ArtifactError: the model asks for a variant of attention that this does not compute.
    """
    _check_variants(variants)
    if dropout:
        raise ArtifactError("a compiled session cannot use attention dropout; this is a bug")
    if attention_mask is None:
        raise ArtifactError("its attention has no mask: a decoder whose tokens see what follows")
    _, num_heads, num_tokens, head_size = query_1HCD.shape
    num_kv_heads = key_1JND.shape[1]
    groups = num_heads // num_kv_heads
    scale = head_size**-0.5 if scaling is None else scaling
    # (G, C) as one dimension: one batched product per key/value head. A batched product, because
    # Inductor's own loops would compute the softmax again for every output element.
    query_JRD = query_1HCD.clone(memory_format=torch.contiguous_format).view(
        num_kv_heads, groups * num_tokens, head_size
    )
    # One token is bound by memory, so it may as well be computed in fp32; a chunk is bound by
    # arithmetic, and products of the cache's own type are twice as fast, as in the plain model.
    dtype = torch.float32 if num_tokens == 1 else key_1JND.dtype
    keys_JDN = key_1JND[0].to(dtype).transpose(1, 2)
    scores_JRN = torch.bmm(query_JRD.to(dtype), keys_JDN).float() * scale
    if softcap is not None:
        scores_JRN = torch.tanh(scores_JRN / softcap) * softcap
    scores_JGCN = scores_JRN.view(num_kv_heads, groups, num_tokens, -1) + attention_mask
    weights_JRN = torch.softmax(scores_JGCN, -1).view(num_kv_heads, groups * num_tokens, -1)
    mixed_JRE = torch.bmm(weights_JRN.to(dtype), value_1JNE[0].to(dtype)).float()
    mixed_1HCE = mixed_JRE.view(1, num_heads, num_tokens, -1)
    return mixed_1HCE.transpose(1, 2).contiguous(), None
