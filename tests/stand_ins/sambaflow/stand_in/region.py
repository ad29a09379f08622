"""A device region: what a run writes, and the next run overwrites."""

from __future__ import annotations

import torch

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.traffic import TRAFFIC


class Region:
    """One named region of the device.

    The host sees a run's value through `read`. When the region is written again, what the host was
    given before becomes poison (NaN, or the smallest integer): so a result that was kept without a
    copy cannot pass for one.
    """

    def __init__(self, name: str, shape: torch.Size, dtype: torch.dtype) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self._value: torch.Tensor | None = None
        self._host_value: torch.Tensor | None = None

    @property
    def is_written(self) -> bool:
        """Whether any run has written it."""
        return self._value is not None

    def write(self, value: torch.Tensor) -> None:
        """Overwrite the region, and poison what the host still holds of it."""
        if self._host_value is not None:
            poison_(self._host_value)
        self._host_value = None
        self._value = value

    def device_value(self) -> torch.Tensor | None:
        """The value where it lies, for another graph on the device; no host traffic."""
        return self._value

    def read(self) -> torch.Tensor:
        """Transfer the region to the host, once a run.

        Raises:
            ContractError: No run has written it.
        """
        if self._value is None:
            raise ContractError(
                Contract.READS, f"output {self.name!r} was read before any run", "a run first"
            )
        if self._host_value is None:
            self._host_value = self._value.clone()
            size_bytes = self._host_value.numel() * self._host_value.element_size()
            TRAFFIC.read(self.name, size_bytes)
        return self._host_value


def poison_(tensor: torch.Tensor) -> None:
    """Fill a tensor with what no one can take for a result."""
    if tensor.dtype.is_floating_point:
        tensor.fill_(torch.nan)
    elif tensor.dtype is torch.bool:
        tensor.fill_(False)
    else:
        tensor.fill_(torch.iinfo(tensor.dtype).min)
