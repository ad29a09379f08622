"""The decode operators as torch knows them: schema, shapes, and meaning in plain torch.

Promises: the plain torch form of an operator is its definition; the C++ form differs from it in the
order of fp32 sums alone. Does not: compile anything; see ``build.py``.

Shapes: I inputs, O outputs of all weights together, H query heads, J key/value heads, N positions
attended to, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

#: Head sizes must be whole vectors of this many numbers.
HEAD_SIZE_STEP = 16
#: Activations that meet int8 weights: this many have one scale, with this many steps on each side
#: of zero. 1024 * 16384 * 127 is below 2^31.
INT8_BLOCK = 1024
INT8_LEVELS = 16384
#: A block of activations that are all smaller counts as zeros.
INT8_SMALLEST = 1e-30
_NAMESPACE = "rdu_batch"
_SCHEMAS = {
    "row_products": "(Tensor x, Tensor[] weights) -> Tensor",
    "row_products_int8": "(Tensor x, Tensor[] weights, Tensor[] scales) -> Tensor",
    "row_attention": (
        "(Tensor query, Tensor keys, Tensor values, float scale, int window, float softcap)"
        " -> Tensor"
    ),
}


@dataclass(frozen=True)
class RowOperators:
    """The operators under the names of one version of the library."""

    #: What their names end with.
    suffix: str
    #: x fp32 [1, 1, I], weights [O_k, I] of one type -> fp32 [1, 1, O]: all W_k x, end to end.
    products: Any
    #: The same for weights int8 [O_k, I] and their scales fp32 [O_k].
    int8_products: Any
    #: query fp32 [1, H, 1, D], keys and values [1, J, N, D] (heads may lie apart), scale, window
    #: (0: none), softcap (0: none) -> fp32 [1, 1, H, D].
    attention: Any


@cache
def row_operators(suffix: str) -> RowOperators:
    """Define the operators for this process; ``suffix`` names the library's version."""
    library: Any = torch.library.Library(_NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
    meanings = {
        "row_products": row_products,
        "row_products_int8": row_products_int8,
        "row_attention": row_attention,
    }
    for name, schema in _SCHEMAS.items():
        named = f"{name}_{suffix}"
        library.define(named + schema, tags=(torch.Tag.needs_exact_strides,))
        library.impl(named, meanings[name], "CompositeExplicitAutograd")
    torch.library.register_fake(f"{_NAMESPACE}::row_products_{suffix}", _products_shape)
    torch.library.register_fake(f"{_NAMESPACE}::row_products_int8_{suffix}", _int8_products_shape)
    torch.library.register_fake(f"{_NAMESPACE}::row_attention_{suffix}", _attention_shape)
    _LIBRARIES.append(library)
    namespace = getattr(torch.ops, _NAMESPACE)
    return RowOperators(
        suffix=suffix,
        products=getattr(namespace, f"row_products_{suffix}").default,
        int8_products=getattr(namespace, f"row_products_int8_{suffix}").default,
        attention=getattr(namespace, f"row_attention_{suffix}").default,
    )


#: A library's definitions end with the object.
_LIBRARIES: list[Any] = []
#: The documented way to refuse shapes while a graph is traced; it has no types.
_check: Any = torch._check  # noqa: SLF001


def shims_of(operators: RowOperators) -> dict[Any, list[str]]:
    """What a compiled graph declares to call each operator by its C name."""
    tensors = "const AtenTensorHandle*, int64_t"
    return {
        operators.products: [_declare(operators.products, tensors)],
        operators.int8_products: [_declare(operators.int8_products, f"{tensors}, {tensors}")],
        operators.attention: [
            _declare(
                operators.attention,
                "AtenTensorHandle, AtenTensorHandle, double, int64_t, double",
            )
        ],
    }


def _declare(operator: Any, arguments: str) -> str:
    name = operator.name().partition("::")[2].partition(".")[0]
    return f"AOTITorchError aoti_torch_cpu_{name}(AtenTensorHandle, {arguments}, AtenTensorHandle*)"


def row_products(x: Tensor, weights: list[Tensor]) -> Tensor:
    """Each weight times the row, sums in fp32, one result after the other."""
    row = x.reshape(-1)
    return torch.cat([(weight.float() * row).sum(-1) for weight in weights]).view(1, 1, -1)


def row_products_int8(x: Tensor, weights: list[Tensor], scales: list[Tensor]) -> Tensor:
    """Each dequantised weight times the row, whose numbers are rounded to whole ones first.

    The sums over a block are exact; what is not finite in a row makes all results NaN.
    """
    blocks_BK, scale_B = _whole_numbers(x.reshape(-1))
    results = []
    for weight_OI, scale_O in zip(weights, scales, strict=True):
        padded = torch.nn.functional.pad(weight_OI, (0, blocks_BK.numel() - x.numel()))
        products_OBK = padded.view(-1, *blocks_BK.shape).int() * blocks_BK
        results.append((products_OBK.sum(-1).float() * scale_B).sum(-1) * scale_O)
    return torch.cat(results).view(1, 1, -1)


def _whole_numbers(x_I: Tensor) -> tuple[Tensor, Tensor]:
    """A row as int32 numbers in blocks [B, K], padded with zeros, and the blocks' scales [B]."""
    blocks_BK = torch.nn.functional.pad(x_I, (0, -x_I.numel() % INT8_BLOCK)).view(-1, INT8_BLOCK)
    largest_B = blocks_BK.abs().amax(-1)
    finite_B = largest_B.isfinite()
    used_B1 = (finite_B & (largest_B >= INT8_SMALLEST))[:, None]
    numbers_BK = (blocks_BK * (INT8_LEVELS / largest_B[:, None])).round()
    scale_B = torch.where(used_B1[:, 0], largest_B / INT8_LEVELS, 0.0)
    return (
        torch.where(used_B1, numbers_BK, 0.0).int(),
        torch.where(finite_B, scale_B, float("nan")),
    )


def row_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> Tensor:
    """Softmax attention of one row of queries over the last ``window`` of N positions, in fp32."""
    first = max(0, keys.shape[2] - window) if window else 0
    groups = query.shape[1] // keys.shape[1]
    seen_keys = keys[:, :, first:].float().repeat_interleave(groups, 1)
    seen_values = values[:, :, first:].float().repeat_interleave(groups, 1)
    scores = query @ seen_keys.transpose(2, 3) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    return (torch.softmax(scores, -1) @ seen_values).transpose(1, 2).contiguous()


def _products_shape(x: Tensor, weights: list[Tensor]) -> Tensor:
    _check(len(weights) > 0, lambda: "row_products without weights")
    for weight in weights:
        _check(
            weight.dim() == 2
            and weight.shape[1] == x.numel()
            and weight.dtype == weights[0].dtype
            and weight.dtype in (torch.bfloat16, torch.float32)
            and x.dtype == torch.float32,
            lambda: f"row_products of {x.dtype} {x.shape} with {weight.dtype} {weight.shape}",  # noqa: B023
        )
    return x.new_empty(1, 1, sum(weight.shape[0] for weight in weights))


def _int8_products_shape(x: Tensor, weights: list[Tensor], scales: list[Tensor]) -> Tensor:
    _check(len(weights) == len(scales) > 0, lambda: "row_products_int8 without weights or scales")
    for weight, scale in zip(weights, scales, strict=True):
        _check(
            weight.dim() == 2
            and weight.shape[1] == x.numel()
            and weight.dtype == torch.int8
            and scale.shape == weight.shape[:1]
            and scale.dtype == x.dtype == torch.float32,
            lambda: (
                f"row_products_int8 of {x.dtype} {x.shape} with {weight.dtype} {weight.shape}, "  # noqa: B023
                f"scales {scale.dtype} {scale.shape}"  # noqa: B023
            ),
        )
    return x.new_empty(1, 1, sum(weight.shape[0] for weight in weights))


def _attention_shape(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> Tensor:
    _check(
        query.shape[:3:2] == (1, 1)
        and keys.shape == values.shape
        and keys.dtype == values.dtype
        and keys.dtype in (torch.bfloat16, torch.float32)
        and query.dtype == torch.float32
        and query.shape[1] % keys.shape[1] == 0
        and query.shape[3] == keys.shape[3]
        and query.shape[3] % HEAD_SIZE_STEP == 0,
        lambda: f"row_attention of {query.shape} over {keys.dtype} {keys.shape}",
    )
    return query.new_empty(1, 1, query.shape[1], query.shape[3])
