"""Symbols of a PEF: named tensors of one shape and dtype, and whether a program's are just so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sambaflow.stand_in.contracts import Contract, ContractError

#: The engine's names of dtypes [WHL].
DTYPE_NAMES = {
    torch.float32: "TENSOR_DTYPE_FP32",
    torch.bfloat16: "TENSOR_DTYPE_BF16",
    torch.int32: "TENSOR_DTYPE_INT32",
    torch.int16: "TENSOR_DTYPE_INT16",
    torch.int64: "TENSOR_DTYPE_INT64",
    torch.bool: "TENSOR_DTYPE_BOOL",
}


@dataclass(frozen=True)
class Symbol:
    """A tensor that the PEF has."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, described: Sequence[Any]) -> Symbol:
        """From the PEF's `[name, shape, dtype]`."""
        name, shape, dtype = described
        return cls(str(name), tuple(shape), getattr(torch, str(dtype).removeprefix("torch.")))

    def check(self, value: Any) -> None:
        """Check a value that a run gives for it: a plain torch tensor in host memory.

        Raises:
            ContractError: It is not, or its shape or dtype differs. That memory must be contiguous
                is [inf].
        """
        if type(value) is not torch.Tensor:
            raise ContractError(
                Contract.TORCH_TENSORS,
                f"input {self.name!r} is a {type(value).__module__}.{type(value).__name__}",
                "a torch.Tensor",
            )
        if value.dtype != self.dtype:
            raise ContractError(
                Contract.DTYPES,
                "PyTorch tensor dtype does not match CoETensor dtype "
                f"(input {self.name!r} of {value.dtype})",
                str(self.dtype),
            )
        if tuple(value.shape) != self.shape:
            raise ContractError(
                Contract.SHAPES,
                f"input {self.name!r} of shape {tuple(value.shape)} does not match",
                f"{self.shape}",
            )
        if value.device.type != "cpu" or not value.is_contiguous():
            raise ContractError(
                Contract.TORCH_TENSORS,
                f"input {self.name!r} is not contiguous, or not in host memory",
                "a contiguous torch.Tensor on the CPU",
            )


def dtype_name(dtype: torch.dtype) -> str:
    """The engine's name of a dtype."""
    return DTYPE_NAMES.get(dtype, f"TENSOR_DTYPE of {dtype}")
