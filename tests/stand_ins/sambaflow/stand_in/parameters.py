"""The SambaParameter: a torch parameter with a name for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import nn


class SambaParameter(nn.Parameter):
    """What `samba.from_torch_model_` makes of each parameter.

    The lazy form, `SambaParameter(shape=, dtype=, materializer=, requires_grad=)` [T:
    gpt2_patch.py], is materialized at once.
    """

    sn_name: str | None

    def __new__(
        cls,
        data: torch.Tensor | None = None,
        requires_grad: bool = True,
        *,
        shape: Iterable[int] | None = None,
        dtype: torch.dtype | None = None,
        materializer: Callable[[Any], torch.Tensor] | None = None,
    ) -> Self:
        if data is None:
            if materializer is None:
                raise ValueError("a SambaParameter needs data or a materializer")
            data = materializer(None)
            found = (tuple(data.shape), data.dtype)
            told = (tuple(shape) if shape is not None else found[0], dtype or found[1])
            if found != told:
                raise ValueError(f"the materializer gave {found}, the SambaParameter says {told}")
        made = torch.Tensor._make_subclass(cls, data, requires_grad)
        made.sn_name = None
        return made

    def torch_tensor(self) -> torch.Tensor:
        """The values on the host, as a plain torch tensor that shares their memory."""
        return self.data.as_subclass(torch.Tensor)

    def __deepcopy__(self, memo: dict[int, Any]) -> SambaParameter:
        if id(self) not in memo:
            copy = SambaParameter(self.data.clone(), self.requires_grad)
            copy.sn_name = self.sn_name
            memo[id(self)] = copy
        return memo[id(self)]
