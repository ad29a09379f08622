"""Patches that rewrite a transformers model for the target, each with its proof.

Promises: a patched model computes what the plain one does, up to the order of fp32 sums; each patch
states why. Does not: choose models; a model that a patch does not understand is refused by name.

The two forms of a graph: ``row`` is one token (decode), ``chunk`` is many (prefill).
Activations are fp32 in both, whatever type the weights have: a bf16 weight times an fp32 activation
is rounded once per product, where plain bf16 also rounds every layer's output. So logits are nearer
to an fp32 reference than a plain bf16 run's, and with fp32 weights nothing changes.

Attention is a room of its own: ``attention.py``; so are int8 weights: ``int8_patches.py``.

Shapes: C tokens of a call, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rdu_batch.sessions.inductor.attention import use_grouped_attention
from rdu_batch.sessions.inductor.int8_patches import int8_module

if TYPE_CHECKING:
    from torch import Tensor

    from rdu_batch.sessions.inductor.int8 import Int8Weight
    from rdu_batch.sessions.inductor.kernels.ops import RowOperators

Form = Literal["row", "chunk"]

#: What can be left out of a decode graph, to measure what it buys: ``rdu-batch bench --without``.
PATCHES: Final[Mapping[str, str]] = {
    "row_kernel": "products of one row by a kernel of our own; without it by Inductor's loops",
    "joined_rows": "products of the same row in one call; without it one call each",
    "row_attention": "attention of one row by a kernel of our own; without it batched products",
    "row_product": "without it and row_kernel, rows go through the library's matrix products",
}


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


class RowKernel(nn.Module):
    """Matrix times one row by a kernel of our own; see ``kernels/``.

    Proof: the same sum as ``RowProduct``, in another order. Inductor's loop keeps one sum in
    flight, and its threads wait for each other some hundred times a token.
    """

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, operators: RowOperators) -> None:
        super().__init__()
        self.weight = weight_OI
        self.bias = bias_O
        self.operators = operators

    def forward(self, x: Tensor) -> Tensor:
        """[1, 1, I] to [1, 1, O]."""
        if x.dtype != torch.float32:
            # Attention code of a model's own may hand on what is in the cache's type. Not always:
            # even a conversion of nothing would hide from ``siblings.py`` that rows are the same.
            x = x.float()
        y: Tensor = self.operators.products(x, [self.weight])
        return y if self.bias is None else y + self.bias.float()


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


def patch_model(
    model: Any,
    form: Form,
    operators: RowOperators | None = None,
    without: Container[str] = (),
    int8: Mapping[str, Int8Weight] = MappingProxyType({}),
) -> Any:
    """Rewrite a transformers model in place for one form of graph; names of weights stay.

    Every ``nn.Linear``, ``Conv1D`` and ``nn.LayerNorm`` is replaced. A ``Conv1D`` keeps its weights
    as [in, out]; transposed to [out, in] it is a Linear: x W + b = (W^T) x + b, the same products.
    The output head is always a row: only one position's logits are ever needed. Other modules stay
    as they are; whether they keep to fp32 is checked by ``compile.py`` against plain transformers.

    Args:
        model: a plain transformers model.
        form: of the graph.
        operators: the decode kernels; None does without them.
        without: names of ``PATCHES`` to leave out.
        int8: weights by name that stand for the model's own, outputs first.
    """
    attention = operators and "row_attention" not in without and form == "row"
    use_grouped_attention(model, operators if attention else None)
    row_product = _row_product(operators, without)
    head = model.get_output_embeddings()
    for prefix, parent in list(model.named_modules()):
        for name, child in list(parent.named_children()):
            row = form == "row" or child is head
            product = row_product if row else ChunkProduct
            weight = int8.get(f"{prefix}.{name}.weight".removeprefix("."))
            if weight is not None:
                module = int8_module(child, weight, row=row, operators=operators, without=without)
                setattr(parent, name, module)
            elif type(child) is nn.Linear:
                setattr(parent, name, product(child.weight, child.bias))
            elif isinstance(child, Conv1D):
                weight_OI = nn.Parameter(child.weight.detach().t().contiguous(), False)
                setattr(parent, name, product(weight_OI, child.bias))
            elif type(child) is nn.LayerNorm:
                setattr(parent, name, Fp32LayerNorm(child))
    return model.eval().requires_grad_(False)


def _row_product(
    operators: RowOperators | None, without: Container[str]
) -> Callable[[Tensor, Tensor | None], nn.Module]:
    if operators is not None and "row_kernel" not in without:
        return lambda weight_OI, bias_O: RowKernel(weight_OI, bias_O, operators)
    return ChunkProduct if "row_product" in without else RowProduct


def transposed_weights(model: nn.Module) -> frozenset[str]:
    """Names of the weights that the patches keep transposed to the checkpoint's layout."""
    return frozenset(
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)
    )
