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
_NAMESPACE = "rdu_batch"
_SCHEMAS = {
    "row_products": "(Tensor x, Tensor[] weights) -> Tensor",
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
    #: query fp32 [1, H, 1, D], keys and values [1, J, N, D] (heads may lie apart), scale, window
    #: (0: none), softcap (0: none) -> fp32 [1, 1, H, D].
    attention: Any


@cache
def row_operators(suffix: str) -> RowOperators:
    """Define the operators for this process; ``suffix`` names the library's version."""
    library: Any = torch.library.Library(_NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
    meanings = {"row_products": row_products, "row_attention": row_attention}
    for name, schema in _SCHEMAS.items():
        named = f"{name}_{suffix}"
        library.define(named + schema, tags=(torch.Tag.needs_exact_strides,))
        library.impl(named, meanings[name], "CompositeExplicitAutograd")
    torch.library.register_fake(f"{_NAMESPACE}::row_products_{suffix}", _products_shape)
    torch.library.register_fake(f"{_NAMESPACE}::row_attention_{suffix}", _attention_shape)
    _LIBRARIES.append(library)
    namespace = getattr(torch.ops, _NAMESPACE)
    return RowOperators(
        suffix=suffix,
        products=getattr(namespace, f"row_products_{suffix}").default,
        attention=getattr(namespace, f"row_attention_{suffix}").default,
    )


#: A library's definitions end with the object.
_LIBRARIES: list[Any] = []
#: The documented way to refuse shapes while a graph is traced; it has no types.
_check: Any = torch._check  # noqa: SLF001


def shims_of(operators: RowOperators) -> dict[Any, list[str]]:
    """What a compiled graph declares to call each operator by its C name."""
    return {
        operators.products: [_declare(operators.products, "const AtenTensorHandle*, int64_t")],
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
