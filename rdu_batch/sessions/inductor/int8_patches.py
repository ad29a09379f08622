"""Modules of int8 weights, each with its proof against the module it stands for.

Promises: the same products as over the plain weights that the int8 numbers stand for; a graph reads
one byte a weight in decode. Which weights: ``int8_names``. Does not: quantise; see ``int8.py``.

Shapes: C tokens of a call, I inputs, O outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from collections.abc import Container

    from torch import Tensor

    from rdu_batch.sessions.inductor.int8 import Int8Weight
    from rdu_batch.sessions.inductor.kernels.ops import RowOperators


class Int8RowKernel(nn.Module):
    """``patches.RowKernel`` for int8 weights.

    Proof: sum_i (n_oi s_o) x_i = s_o sum_i n_oi x_i. The kernel rounds each x_i to one of 32,769
    steps between plus and minus the largest of its 1,024 neighbours (``kernels/int8_row.h``) and
    adds whole numbers, which rounds less than bf16 activations would.
    """

    def __init__(self, weight: Int8Weight, bias_O: Tensor | None, operators: RowOperators) -> None:
        super().__init__()
        self.weight, self.weight_scale = _held(weight)
        self.bias = bias_O
        self.operators = operators

    def forward(self, x: Tensor) -> Tensor:
        """[1, 1, I] to [1, 1, O]."""
        y: Tensor = self.operators.int8_products(x, [self.weight], [self.weight_scale])
        return y if self.bias is None else y + self.bias.float()


class Int8RowProduct(nn.Module):
    """``patches.RowProduct`` for int8 weights.

    Proof: sum_i (n_oi s_o) x_i = s_o sum_i n_oi x_i, with fp32 activations as they are.
    """

    def __init__(self, weight: Int8Weight, bias_O: Tensor | None) -> None:
        super().__init__()
        self.weight, self.weight_scale = _held(weight)
        self.bias = bias_O

    def forward(self, x: Tensor) -> Tensor:
        """[1, 1, I] to [1, 1, O]."""
        y_O = (self.weight.float() * x.reshape(1, -1)).sum(-1) * self.weight_scale
        if self.bias is not None:
            y_O = y_O + self.bias.float()
        return y_O.view(1, 1, -1)


class Int8ChunkProduct(nn.Module):
    """``patches.ChunkProduct`` for int8 weights: the library's product of numbers made ``dtype``.

    Proof: sum_i (n_oi s_o) x_i = s_o sum_i n_oi x_i; whole numbers up to 127 are exact in bf16, so
    only the input is rounded, as it is for bf16 weights. The wide numbers live for one product.
    """

    def __init__(self, weight: Int8Weight, bias_O: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.weight_scale = _held(weight)
        self.bias = bias_O
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """[1, C, I] to [1, C, O]."""
        y = nn.functional.linear(x.to(self.dtype), self.weight.to(self.dtype)).float()
        y = y * self.weight_scale
        return y if self.bias is None else y + self.bias.float()


class Int8Embedding(nn.Module):
    """``nn.Embedding`` whose table is the int8 weight of the output head.

    Proof: row v of the table is its numbers times its scale. A token reads one row, so this costs
    nothing, and the table need not be there twice.
    """

    def __init__(self, weight: Int8Weight) -> None:
        super().__init__()
        self.weight, self.weight_scale = _held(weight)

    def forward(self, input_ids: Tensor) -> Tensor:
        """[1, C] to [1, C, I]."""
        return self.weight[input_ids].float() * self.weight_scale[input_ids][..., None]


def int8_module(
    plain: Any,
    weight: Int8Weight,
    *,
    row: bool,
    operators: RowOperators | None,
    without: Container[str],
) -> nn.Module:
    """What stands for ``plain``, a module of ``int8_names``, in a graph.

    Args:
        plain: a Linear, Conv1D or Embedding, in the type that chunks compute in.
        weight: its weight, outputs first.
        row: it is called with one row.
        operators: the decode kernels; None does without them.
        without: names of ``patches.PATCHES`` to leave out.
    """
    if isinstance(plain, nn.Embedding):
        return Int8Embedding(weight)
    if row and operators is not None and "row_kernel" not in without:
        return Int8RowKernel(weight, plain.bias, operators)
    if row and "row_product" not in without:
        return Int8RowProduct(weight, plain.bias)
    return Int8ChunkProduct(weight, plain.bias, plain.weight.dtype)


def _held(weight: Int8Weight) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(weight.numbers, False), nn.Parameter(weight.scale, False)


def int8_names(model: Any) -> frozenset[str]:
    """Names of the weights that become int8: all that decode reads whole, and nothing else.

    These are the weights of every ``nn.Linear`` and ``Conv1D``, and the embedding that is one of
    them too. An embedding with rules of its own keeps its table, apart from the head's.
    """
    modules = [
        (f"{name}.weight", module) for name, module in model.named_modules(remove_duplicate=False)
    ]
    products = {
        name: module.weight.data_ptr()
        for name, module in modules
        if type(module) is nn.Linear or isinstance(module, Conv1D)
    }
    tied = {
        name
        for name, module in modules
        if type(module) is nn.Embedding and module.weight.data_ptr() in products.values()
    }
    return frozenset(products) | tied
