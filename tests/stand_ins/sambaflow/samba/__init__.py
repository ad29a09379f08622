"""The `samba` module: tensors, conversion, and the one session of the process.

`from sambaflow import samba` and `import sambaflow.samba as samba` are the documented imports [T].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sambaflow.samba import utils
from sambaflow.samba.samba_session import SESSION, SambaSession
from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.models import MODELS
from sambaflow.stand_in.parameters import SambaParameter
from sambaflow.stand_in.tensors import SambaTensor

__all__ = [
    "SambaSession",
    "SambaTensor",
    "addmm",
    "from_named_dict",
    "from_torch",
    "from_torch_model_",
    "from_torch_tensor",
    "rand",
    "randint",
    "randn",
    "session",
    "to_torch",
    "utils",
]

session = SESSION


def from_torch_tensor(
    tensor: torch.Tensor,
    name: str | None = None,
    batch_dim: int | None = None,
    sized_dims: Any = None,
) -> SambaTensor:
    """Wrap a torch tensor; memory is shared, and a view stays a view [T; DOC: samba.html].

    Raises:
        TypeError: It is no torch tensor.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"from_torch_tensor wants a torch.Tensor, not {type(tensor).__name__}")
    return SambaTensor(tensor, name=name, batch_dim=batch_dim, sized_dims=sized_dims)


def from_torch(tensor: torch.Tensor, name: str | None = None) -> SambaTensor:
    """As `from_torch_tensor` [MZ]."""
    return from_torch_tensor(tensor, name=name)


def from_named_dict(tensors: Mapping[str, torch.Tensor]) -> list[SambaTensor]:
    """Inputs for a run from tensors by name [MZ: model_session.py]."""
    return [from_torch_tensor(tensor, name=name) for name, tensor in tensors.items()]


def to_torch(tensor: SambaTensor | torch.Tensor) -> torch.Tensor:
    """The torch tensor behind a SambaTensor; torch tensors pass [T; MZ]."""
    if isinstance(tensor, SambaParameter | SambaTensor):
        return tensor.torch_tensor()
    if isinstance(tensor, torch.Tensor):
        return tensor
    raise TypeError(f"to_torch wants a SambaTensor or a torch.Tensor, not {type(tensor).__name__}")


def from_torch_model_(model: nn.Module, parent_module_prefix: str | None = None) -> None:
    """Convert a model in place: its parameters become SambaParameters [T; DOC].

    Raises:
        ContractError: It was converted before.
    """
    MODELS.convert_(model, parent_module_prefix)
    for name, buffer in model.named_buffers():
        session.buffer_dict[name] = SambaTensor(buffer, name=name.replace(".", "__"))


def addmm(
    bias: torch.Tensor, x: torch.Tensor, w: torch.Tensor, is_transposed: bool = False
) -> torch.Tensor:
    """`bias + x @ w`, where `w` is (in, out), or (out, in) if it is transposed [T: gpt2_patch.py].

    Raises:
        ContractError: The weight has not the layout that the call says.
    """
    in_out = w.t() if is_transposed else w
    if in_out.shape[0] != x.shape[-1] or in_out.shape[1] != bias.shape[-1]:
        raise ContractError(
            Contract.ADDMM,
            f"x {tuple(x.shape)}, w {tuple(w.shape)}, bias {tuple(bias.shape)}",
            "w of (out, in)" if is_transposed else "w of (in, out)",
        )
    rows = torch.addmm(bias, x.reshape(-1, x.shape[-1]), in_out)
    return rows.view(*x.shape[:-1], in_out.shape[1])


def randn(
    *shape: int,
    name: str | None = None,
    batch_dim: int | None = None,
    named_dims: Sequence[str] | None = None,
) -> SambaTensor:
    """A SambaTensor of normal random numbers [T: lenet.py]."""
    return SambaTensor(torch.randn(*shape), name=name, batch_dim=batch_dim, named_dims=named_dims)


def rand(*shape: int, name: str | None = None, batch_dim: int | None = None) -> SambaTensor:
    """A SambaTensor of random numbers between 0 and 1 [DOC]."""
    return SambaTensor(torch.rand(*shape), name=name, batch_dim=batch_dim)


def randint(
    high: int, size: Sequence[int], name: str | None = None, batch_dim: int | None = None
) -> SambaTensor:
    """A SambaTensor of random integers below `high` [T: lenet.py]."""
    return SambaTensor(torch.randint(high, tuple(size)), name=name, batch_dim=batch_dim)
