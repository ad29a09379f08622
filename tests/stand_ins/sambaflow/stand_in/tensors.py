"""The SambaTensor: a torch tensor with the name that binds it to a symbol of the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.region import Region


class SambaTensor:
    """Wraps a torch tensor and shares its memory [DOC: samba.sambatensor.html].

    One that `trace_graph` returned is an output: its value lies on the device and is read by
    `samba.to_torch` (or `.torch()`, `.torch_tensor()`, `.data`), not by computing with it.
    """

    def __init__(
        self,
        torch_tensor: torch.Tensor | None = None,
        shape: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        name: str | None = None,
        batch_dim: int | None = None,
        named_dims: Sequence[str] | None = None,
        sized_dims: Any = None,
        materializer: Callable[[SambaTensor], torch.Tensor] | None = None,
        is_complex: bool | None = None,
        region_name: str | None = None,
    ) -> None:
        if torch_tensor is None and (shape is None or dtype is None):
            raise ValueError("a SambaTensor needs a torch tensor, or a shape and a dtype")
        self._host = torch_tensor
        self._shape = torch.Size(shape) if torch_tensor is None else torch_tensor.shape
        self._dtype = dtype if torch_tensor is None else torch_tensor.dtype
        self._materializer = materializer
        self._region: Region | None = None
        self.sn_name = name
        self.sn_region_name = region_name if region_name is not None else name
        self.batch_dim = batch_dim
        self.named_dims = named_dims
        self.sized_dims = sized_dims
        self.is_complex = is_complex
        self.host_memory = True
        self.sn_grad: SambaTensor | None = None

    @property
    def name(self) -> str | None:
        """The name that binds it."""
        return self.sn_name

    @property
    def shape(self) -> torch.Size:
        """Its shape, known even where it holds no data."""
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        """Its torch dtype."""
        assert self._dtype is not None
        return self._dtype

    @property
    def has_data(self) -> bool:
        """Whether it has a value."""
        return self._region.is_written if self._region is not None else self._host is not None

    @property
    def data(self) -> torch.Tensor:
        """The torch tensor [MZ: clm_runtime.py reads outputs so]."""
        return self.torch_tensor()

    def torch_tensor(self) -> torch.Tensor:
        """The value, in memory of the host; for an output, a transfer."""
        if self._region is not None:
            return self._region.read()
        if self._host is None and self._materializer is not None:
            self._host = self._materializer(self)
        if self._host is None:
            raise ContractError(
                Contract.READS, f"{self!r} holds no data", "a tensor with data, or a materializer"
            )
        return self._host

    def torch(self) -> torch.Tensor:
        """As `torch_tensor`."""
        return self.torch_tensor()

    def cpu(self) -> SambaTensor:
        """Itself; the value of an output is fetched."""
        self.torch_tensor()
        return self

    def cpu_(self) -> SambaTensor:
        """As `cpu`."""
        return self.cpu()

    def rdu(self) -> SambaTensor:
        """Itself: a run transfers its inputs."""
        return self

    def clear_data(self) -> None:
        """Forget the host's value; shape, dtype and name stay."""
        self._host = None

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one length of it."""
        return self._shape if dim is None else self._shape[dim]

    def dim(self) -> int:
        """How many dimensions it has."""
        return len(self._shape)

    def numel(self) -> int:
        """How many elements it has."""
        return self._shape.numel()

    def bfloat16(self) -> SambaTensor:
        """A SambaTensor of the same name in bfloat16 [T: logreg.py]."""
        return self._same_name(self._host_only("bfloat16").bfloat16())

    def float(self) -> SambaTensor:
        """A SambaTensor of the same name in float32 [T: logreg.py]."""
        return self._same_name(self._host_only("float").float())

    def expand(self, *sizes: Any) -> SambaTensor:
        """A SambaTensor of the same name over an expanded view."""
        return self._same_name(self._host_only("expand").expand(*sizes))

    def view(self, *sizes: Any) -> SambaTensor:
        """A SambaTensor of the same name over a view."""
        return self._same_name(self._host_only("view").view(*sizes))

    def __getitem__(self, index: Any) -> SambaTensor:
        return self._same_name(self._host_only("indexing")[index])

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self._host_only("numpy").numpy()

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "a torch function")

        def unwrap(value: Any) -> Any:
            if isinstance(value, SambaTensor):
                return value._host_only(name)
            if isinstance(value, (list, tuple)):
                return type(value)(unwrap(one) for one in value)
            return value

        told = {key: unwrap(value) for key, value in (kwargs or {}).items()}
        return func(*(unwrap(value) for value in args), **told)

    def _host_only(self, doing: str) -> torch.Tensor:
        """Its tensor, for computing on the host: refused for an output of the device."""
        if self._region is not None:
            raise ContractError(
                Contract.READS,
                f"{doing} on the output {self.sn_name!r}, which lies on the device",
                "samba.to_torch(output) first",
            )
        return self.torch_tensor()

    def _same_name(self, tensor: torch.Tensor) -> SambaTensor:
        return SambaTensor(tensor, name=self.sn_name, batch_dim=self.batch_dim)

    def __repr__(self) -> str:
        return f"SambaTensor(name={self.sn_name!r}, shape={tuple(self._shape)}, {self._dtype})"


def output_tensor(region: Region, name: str) -> SambaTensor:
    """The SambaTensor of an output: its value lies in a region of the device."""
    tensor = SambaTensor(shape=region.shape, dtype=region.dtype, name=name, region_name=region.name)
    tensor._region = region
    tensor.host_memory = False
    return tensor
