"""A model with a key/value cache of fixed shape: what the graphs of a cached PEF are traced from.

What is traced is transformers' own code of a family, given its mask, its positions and a cache from
here, so that a graph has static shapes and looks at no values:

- prefill takes a prompt padded on the right. Its mask is causal, so padding needs no mask of its
  own; what padding leaves in the cache lies behind the last token, where decode masks it until it
  is overwritten;
- decode writes one token's keys and values at ``last_token_index`` by a scatter, and attends to
  what ``attention_mask`` says;
- scores of masked positions have ``MASKED`` added. The lowest float32 would be -inf as bf16, and
  rows of it NaN;
- logits are taken at ``last_token_index`` on the device, as float32;
- weights are not tied, as SambaFlow compiles no shared tensor into several graphs;
- there is no dropout in the graphs, so a run is given no probability of it.

Families: GPT-2, with the products, sections and exact GELU of ``gpt2_patch.py``, and Llama.

Promises: but for GPT-2's activation it computes what transformers' own model does, up to the order
of sums. Does not: know SambaFlow beyond the two functions that it is given.

Shapes: C tokens of a call, S of a prefill, M positions of the cache, H key/value heads, D head
size, V vocabulary. Batch size is 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.cache_argument import cache_argument
from rdu_batch.sessions.inductor.attention import grouped_attention
from rdu_batch.sessions.inductor.rotary import freeze_rotary, rotary_limit
from rdu_batch.sessions.samba import gpt2_patch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

#: ``model_type`` of the models that a cache was tested with.
FAMILIES: Final = (gpt2_patch.FAMILY, "llama")
#: Added to the scores of masked positions.
MASKED: Final = -10e10
_ATTENTION: Final = "rdu_batch_static"


def check_cachable(config: Any, max_seq_length: int) -> None:
    """Refuse a model that cannot be compiled with a cache.

    Raises:
        ArtifactError: another family, or a form of attention that this does not have (exit 8).
        UsageError: rotary frequencies that change within these positions (exit 2).
    """
    family = config.model_type
    if family not in FAMILIES:
        raise ArtifactError(
            f"{family}: kind samba compiles {' and '.join(FAMILIES)} with a cache; nothing was "
            "written, use --kind inductor or --kind eager for this model"
        )
    if family == gpt2_patch.FAMILY:
        gpt2_patch.check_patchable(config)
        return
    limit = rotary_limit(config)
    if limit is not None and max_seq_length > limit:
        raise UsageError(
            f"max_seq_length is {max_seq_length}, but the rotary frequencies of this {family} "
            f"model change behind position {limit}; use --max_seq_length {limit} or less"
        )


def patch_cached(
    model: Any,
    *,
    max_seq_length: int,
    addmm: Callable[..., Any],
    op_fusion: Callable[..., Any],
) -> Any:
    """Make transformers' model one that ``CachedModel`` can call, in place, and give it back.

    Args:
        model: as transformers made it, before ``samba.from_torch_model_``.
        max_seq_length: M.
        addmm: ``samba.addmm``, see ``gpt2_patch.patch_gpt2``.
        op_fusion: ``op_fusion`` of SambaFlow's directives.
    """
    if model.config.model_type == gpt2_patch.FAMILY:
        _without_dropout(model)
        gpt2_patch.patch_blocks(model, addmm=addmm, op_fusion=op_fusion)
    else:
        freeze_rotary(model, max_seq_length)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _static_attention)
    model.config._attn_implementation = _ATTENTION  # noqa: SLF001 - transformers' own switch
    return model


def _without_dropout(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(module, name, nn.Identity())


def _static_attention(
    module: nn.Module, query_1HCD: Tensor, *arguments: Any, **variants: Any
) -> tuple[Tensor, None]:
    """``grouped_attention``, whose sums are float32, with activations in the type that they had."""
    mixed, _ = grouped_attention(module, query_1HCD, *arguments, **variants)
    return mixed.to(query_1HCD.dtype), None


class CachedModel(nn.Module):
    """A patched model with its cache among the arguments and results of a call."""

    def __init__(self, model: Any, max_seq_length: int) -> None:
        """Around ``model``, as ``patch_cached`` gave it, with a cache of M positions."""
        super().__init__()
        self.model: Any = model
        self.max_seq_length = max_seq_length
        self.cache_argument = cache_argument(model)

    def forward(
        self,
        input_ids: Tensor,
        last_token_index: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """Prefill without a cache, or decode one token with one.

        Args:
            input_ids: [1, S] of a prompt and padding behind it, or [1, 1] of one token.
            last_token_index: [1, 1], position of the last token. torch wants int64 for a scatter;
                the graph's own input is int32.
            attention_mask: decode: [1, M], 1 for each position up to the last token, then 0.
            past_key_values: decode: a pair of [1, H, M, D] for each layer.

        Gives back the logits after the last token, [1, 1, V] float32, and the cache.
        """
        cache: _PrefillCache | _DecodeCache
        dtype = self.model.dtype
        if past_key_values is None or attention_mask is None:
            length = input_ids.shape[1]
            cache = _PrefillCache(self.max_seq_length)
            position_ids = torch.arange(length, device=input_ids.device)[None]
            masked_CN = torch.full((length, length), MASKED, dtype=dtype).triu(1)
        else:
            cache = _DecodeCache(past_key_values, last_token_index)
            position_ids = last_token_index
            masked_CN = (1 - attention_mask).to(dtype) * MASKED
        output = self.model(
            input_ids,
            position_ids=position_ids,
            # Of four dimensions: transformers takes such a mask as it is.
            attention_mask=masked_CN[None, None],
            use_cache=True,
            logits_to_keep=last_token_index,
            **{self.cache_argument: cache},
        )
        return output.logits.float(), tuple(cache.layers)


class _PrefillCache:
    """Hands a layer the prompt's own keys and values, and keeps them padded to the cache."""

    def __init__(self, max_seq_length: int) -> None:
        self._max_seq_length = max_seq_length
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys_1HSD: Tensor, values_1HSD: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by each layer in turn."""
        behind = (0, 0, 0, self._max_seq_length - keys_1HSD.shape[2])
        self.layers.append(
            (nn.functional.pad(keys_1HSD, behind), nn.functional.pad(values_1HSD, behind))
        )
        return keys_1HSD, values_1HSD


class _DecodeCache:
    """Writes one token into each layer's cache, as a new tensor: SambaFlow shares the region."""

    def __init__(self, past: Sequence[tuple[Tensor, Tensor]], index_11: Tensor) -> None:
        self._past = past
        self._index_1111 = index_11[:, :, None, None]
        self.layers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys_1H1D: Tensor, values_1H1D: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by each layer in turn; gives it all M positions."""
        keys_1HMD, values_1HMD = self._past[len(self.layers)]
        place = self._index_1111.expand_as(keys_1H1D)
        written = (
            keys_1HMD.scatter(2, place, keys_1H1D),
            values_1HMD.scatter(2, place, values_1H1D),
        )
        self.layers.append(written)
        return written
