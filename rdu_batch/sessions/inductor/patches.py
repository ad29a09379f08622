"""Patches that rewrite a transformers model for the target, each with its proof.

Promises: a patched model computes what the plain one does, up to the order of fp32 sums; each patch
states why. Does not: choose models; a model that a patch does not understand is refused by name.

The two forms of a graph: ``row`` is one token (decode), ``chunk`` is many (prefill).
Activations are fp32 in both, whatever type the weights have: a bf16 weight times an fp32 activation
is rounded once per product, where plain bf16 also rounds every layer's output. So logits are nearer
to an fp32 reference than a plain bf16 run's, and with fp32 weights nothing changes.

Shapes: C tokens of a call, I inputs, O outputs, H query heads, J key/value heads, G = H / J,
N positions attended to, D head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

Form = Literal["row", "chunk"]
ATTENTION = "rdu_batch_grouped"


class RowProduct(nn.Module):
    """Matrix times one row, written as products and sums instead of a matrix product.

    Proof: y_o = sum_i w_oi x_i + b_o is the definition of ``nn.Linear`` for one row; only the order
    of the fp32 sum differs. Inductor turns it into one pass over the weights at the speed of
    memory, two to three times faster than the matrix product routines at one row.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.weight = weight_OI
        self.bias = bias_O

    def forward(self, x: Tensor) -> Tensor:
        """[1, 1, I] to [1, 1, O]."""
        y_O = (self.weight.float() * x.reshape(1, -1)).sum(-1)
        if self.bias is not None:
            y_O = y_O + self.bias.float()
        return y_O.view(1, 1, -1)


class ChunkProduct(nn.Module):
    """``nn.Linear`` between fp32 activations, computed in the weights' type.

    Proof: the same call as ``nn.Linear``; for bf16 weights the input is rounded once to bf16, as
    the plain bf16 model does, and sums are fp32 inside the product.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.weight = weight_OI
        self.bias = bias_O

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, I] to [1, C, O]."""
        y = nn.functional.linear(x.to(self.weight.dtype), self.weight).float()
        return y if self.bias is None else y + self.bias.float()


class Fp32LayerNorm(nn.Module):
    """``nn.LayerNorm`` of fp32 activations with weights of any type.

    Proof: bf16 to fp32 is exact, and the rest is the same call.
    """

    def __init__(self, plain: nn.LayerNorm) -> None:
        super().__init__()
        self.weight = plain.weight
        self.bias: Tensor | None = plain.bias
        self.normalized_shape, self.eps = plain.normalized_shape, plain.eps

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends with the normalized one, unchanged."""
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.layer_norm(
            x, self.normalized_shape, self.weight.float(), bias, self.eps
        )


def grouped_attention(
    _module: nn.Module,
    query_1HCD: Tensor,
    key_1JND: Tensor,
    value_1JND: Tensor,
    mask_11CN: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **variants: Any,
) -> tuple[Tensor, None]:
    """Attention in fp32 that reads each key/value head once for its whole group of query heads.

    Proof: plain attention repeats each key/value head G times and takes softmax(q k^T * s + m) v
    per query head. Head h uses key/value head h // G, so viewing H as (J, G) and broadcasting gives
    the same sums over the same numbers.

    Returns [1, C, H, D] as the modelling code expects, and no attention weights.

    Raises:
        ArtifactError: the model asks for a variant of attention that this does not compute.
    """
    for name in ("sliding_window", "softcap", "s_aux", "position_bias"):
        if variants.get(name) is not None:
            raise ArtifactError(
                f"this model's attention uses {name}, which the inductor kind does not compute; "
                "use session.kind eager for it"
            )
    if dropout:
        raise ArtifactError("a compiled session cannot use attention dropout; this is a bug")
    _, num_heads, num_tokens, head_size = query_1HCD.shape
    num_kv_heads = key_1JND.shape[1]
    groups = num_heads // num_kv_heads
    scale = head_size**-0.5 if scaling is None else scaling
    # (G, C) as one dimension: one batched product per key/value head. A batched product, because
    # Inductor's own loops would compute the softmax again for every output element.
    query_JRD = query_1HCD.reshape(num_kv_heads, groups * num_tokens, head_size)
    scores_JRN = torch.bmm(query_JRD, key_1JND[0].float().transpose(1, 2)) * scale
    scores_JGCN = scores_JRN.view(num_kv_heads, groups, num_tokens, -1) + mask_11CN
    weights_JRN = torch.softmax(scores_JGCN, -1).view(num_kv_heads, groups * num_tokens, -1)
    mixed_JRD = torch.bmm(weights_JRN, value_1JND[0].float())
    mixed_1HCD = mixed_JRD.view(1, num_heads, num_tokens, head_size)
    return mixed_1HCD.transpose(1, 2).contiguous(), None


def patch_model(model: Any, form: Form) -> Any:
    """Rewrite a transformers model in place for one form of graph; names of weights stay.

    Every ``nn.Linear``, ``Conv1D`` and ``nn.LayerNorm`` is replaced. A ``Conv1D`` keeps its weights
    as [in, out]; transposed to [out, in] it is a Linear: x W + b = (W^T) x + b, the same products.
    The output head is always a row: only one position's logits are ever needed. Other modules stay
    as they are; whether they keep to fp32 is checked by ``compile.py`` against plain transformers.
    """
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, grouped_attention)
    model.config._attn_implementation = ATTENTION  # noqa: SLF001 - transformers' own switch
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            product = RowProduct if form == "row" or child is head else ChunkProduct
            if type(child) is nn.Linear:
                setattr(parent, name, product(child.weight, child.bias))
            elif isinstance(child, Conv1D):
                weight_OI = nn.Parameter(child.weight.detach().t().contiguous(), False)
                setattr(parent, name, product(weight_OI, child.bias))
            elif type(child) is nn.LayerNorm:
                setattr(parent, name, Fp32LayerNorm(child))
    return model.eval().requires_grad_(False)


def transposed_weights(model: nn.Module) -> frozenset[str]:
    """Names of the weights that the patches keep transposed to the checkpoint's layout."""
    return frozenset(
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)
    )
