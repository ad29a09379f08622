"""GPT-2 rewritten for the RDU, as SambaNova's tutorial does with its ``gpt2_patch_helper``.

What a patched model is:

- its activation is the exact GELU, x * Phi(x) by erf, where GPT-2's ``gelu_new`` approximates it by
  tanh: at most 0.0005 apart at any x, so logits differ from those of a plain GPT-2. A plain model
  computes the same as a patched one if its config says ``"activation_function": "gelu"``;
- the weights of its four products a block lie transposed, (out, in), and go through
  ``samba.addmm(..., is_transposed=True)`` (``layout.py``);
- each attention holds the causal mask as a buffer ``bias`` (1, 1, N, N); the mask among the inputs
  only hides padding, and is added to the scores;
- its forward takes and gives plain tuples, so that it can be traced: ``(logits_1LV,)``;
- each block is marked to become one section of the device (``op_fusion``).

A model with a cache (``cached_model.py``) has the activation, the products and the marks of this
one, but attention and forward of its own.

Promises: but for the activation it computes what transformers' own model does, up to the order of
sums. The module is changed in place, never its class. Does not: train; know SambaFlow beyond the
two functions that it is given.

Shapes: L positions, N positions of the model, V vocabulary, n hidden size. Batch size is 1.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.samba.layout import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

#: ``model_type`` of the models that there is a patch for.
FAMILY: Final = "gpt2"
#: What a section of the device is called.
_SECTION: Final = "Encoder"


def check_patchable(config: Any) -> None:
    """Refuse a model that this patch does not understand.

    Raises:
        ArtifactError: another family, or a form of attention that the patch does not have. Ends
            the command (exit 8).
    """
    if config.model_type != FAMILY:
        raise ArtifactError(
            f"{config.model_type}: kind samba has a patch for {FAMILY} alone where graphs are "
            "single; nothing was written, use --graphs cached for a llama, and --kind inductor or "
            "--kind eager for any other model"
        )
    for name in ("add_cross_attention", "reorder_and_upcast_attn"):
        if getattr(config, name, False):
            raise ArtifactError(
                f"{FAMILY} with {name}: kind samba has no patch for that; nothing was written, use "
                "--kind inductor or --kind eager for this model"
            )


def patch_gpt2(model: Any, *, addmm: Callable[..., Any], op_fusion: Callable[..., Any]) -> Any:
    """Patch transformers' GPT-2 with a language model head, in place, and give it back.

    Args:
        model: as transformers made it, before ``samba.from_torch_model_``.
        addmm: ``samba.addmm``, or a function like it: ``(bias, x, weight, is_transposed=True)``.
        op_fusion: ``op_fusion`` of SambaFlow's directives: ``(module, name)``.

    Raises:
        ArtifactError: see ``check_patchable``.
    """
    check_patchable(model.config)
    # Flags that code around a patched model looks at.
    model.return_logits = True
    model.no_index_select_patch = True
    model.return_cache = False
    for block in model.transformer.h:
        _give_causal_mask(block.attn, model.config)
        block.attn.forward = MethodType(_attention_forward, block.attn)
    patch_blocks(model, addmm=addmm, op_fusion=op_fusion)
    model.transformer.forward = MethodType(_transformer_forward, model.transformer)
    model.forward = MethodType(_language_model_forward, model)
    return model


def patch_blocks(model: Any, *, addmm: Callable[..., Any], op_fusion: Callable[..., Any]) -> None:
    """What graphs with and without a cache have in common: activation, products and sections.

    Arguments as of ``patch_gpt2``.
    """
    for block in model.transformer.h:
        block.mlp.act = nn.GELU()
        for name in PRODUCTS:
            _transpose(block.get_submodule(name), addmm)
        op_fusion(block, _SECTION)


def _give_causal_mask(attention: Any, config: Any) -> None:
    num_positions = int(config.n_positions)
    causal_NN = torch.ones(num_positions, num_positions, dtype=torch.bool).tril()
    # Not among the weights: no checkpoint has it.
    attention.register_buffer("bias", causal_NN[None, None], persistent=False)


def _transpose(product: Any, addmm: Callable[..., Any]) -> None:
    """From transformers' Conv1D, weight (in, out), to one of (out, in)."""
    weight = product.weight
    product.weight = nn.Parameter(weight.detach().t(), requires_grad=weight.requires_grad)

    def forward(self: Any, x: Any) -> Any:
        rows = addmm(self.bias, x.view(-1, x.size(-1)), self.weight, is_transposed=True)
        return rows.view(*x.size()[:-1], self.nf)

    product.forward = MethodType(forward, product)


def _language_model_forward(
    self: Any,
    input_ids: Any,
    past_key_values: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    position_ids: Any = None,
    head_mask: Any = None,
    inputs_embeds: Any = None,
    encoder_hidden_states: Any = None,
) -> tuple[Any]:
    """[1, L] ids, (1, 1, L) mask and [1, L] positions to a tuple of logits [1, L, V].

    The order of arguments is the tutorial's; those that its inference leaves None must be None.
    """
    unused = (
        past_key_values,
        token_type_ids,
        head_mask,
        inputs_embeds,
        encoder_hidden_states,
    )
    if any(one is not None for one in unused):
        raise ValueError("a patched GPT-2 takes input_ids, attention_mask and position_ids alone")
    return (self.lm_head(self.transformer(input_ids, attention_mask, position_ids)),)


def _transformer_forward(self: Any, input_ids: Any, attention_mask: Any, position_ids: Any) -> Any:
    """Hidden states [1, L, n] behind the last block."""
    dtype = self.wte.weight.dtype
    key_mask_111L = attention_mask.view(1, -1)[:, None, None, :].to(dtype=dtype)
    hidden_mask_111L = (1.0 - key_mask_111L) * torch.finfo(dtype).min
    hidden_1Ln = self.drop(self.wte(input_ids) + self.wpe(position_ids))
    for block in self.h:
        hidden_1Ln = block(hidden_1Ln, attention_mask=hidden_mask_111L)
    return self.ln_f(hidden_1Ln)


def _attention_forward(
    self: Any, hidden_states: Any, attention_mask: Any = None, **_unused: Any
) -> tuple[Any, None]:
    """Attention of a block over all positions at once; ``attention_mask`` is added to the scores.

    Takes and gives what transformers' own does, of which a static graph needs no cache.
    """
    query, key, value = (
        _heads(self, one) for one in self.c_attn(hidden_states).split(self.split_size, dim=2)
    )
    scores_1HLL = torch.matmul(query, key.transpose(-1, -2)) * _scale_of(self)
    length = scores_1HLL.size(-1)
    lowest = torch.full(
        [], torch.finfo(scores_1HLL.dtype).min, dtype=scores_1HLL.dtype, device=scores_1HLL.device
    )
    scores_1HLL = torch.where(self.bias[:, :, :length, :length], scores_1HLL, lowest)
    if attention_mask is not None:
        scores_1HLL = scores_1HLL + attention_mask
    weights_1HLL = self.attn_dropout(nn.functional.softmax(scores_1HLL, dim=-1))
    joined = torch.matmul(weights_1HLL, value).permute(0, 2, 1, 3).contiguous()
    joined_1Ln = joined.view(*joined.size()[:-2], self.embed_dim)
    return self.resid_dropout(self.c_proj(joined_1Ln)), None


def _heads(attention: Any, states_1Ln: Tensor) -> Tensor:
    """[1, L, n] to [1, heads, L, head size]."""
    shape = (*states_1Ln.size()[:-1], attention.num_heads, attention.head_dim)
    return states_1Ln.view(shape).permute(0, 2, 1, 3)


def _scale_of(attention: Any) -> float:
    scale = attention.head_dim**-0.5 if attention.scale_attn_weights else 1.0
    return scale / (attention.layer_idx + 1) if attention.scale_attn_by_inverse_layer_idx else scale
