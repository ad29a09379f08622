"""What tensors of several graphs may share: names, regions, sizes [MZ: clm_tracer.py]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.specs import InputSpec, specs_of
from sambaflow.stand_in.tensors import SambaTensor


def check_leaves(leaves: Sequence[Any]) -> None:
    """Check that tensors among the inputs are named SambaTensors."""
    specs_of([leaf for leaf in leaves if isinstance(leaf, torch.Tensor | SambaTensor)], "tracing")


def described_leaf(leaf: Any) -> list[Any]:
    """An input or output for the fingerprint."""
    if isinstance(leaf, SambaTensor):
        return InputSpec(leaf.sn_name, tuple(leaf.shape), str(leaf.dtype)).as_json()
    return ["constant", repr(leaf)]


def same_objects(found: Any, wanted: Sequence[Any]) -> bool:
    """Whether two sequences hold the very same objects (or equal constants), in order."""
    return len(found) == len(wanted) and all(
        one is other or (not isinstance(one, SambaTensor) and one == other)
        for one, other in zip(found, wanted, strict=True)
    )


def check_regions(tensors: Sequence[SambaTensor], *, is_input: bool) -> None:
    """Check that names are unique, and that no two inputs share a region [MZ: clm_tracer.py].

    One input may lie in several graphs, and share its region with any number of outputs.
    """
    names: dict[str | None, SambaTensor] = {}
    regions: dict[str | None, SambaTensor] = {}
    for tensor in tensors:
        if names.setdefault(tensor.sn_name, tensor) is not tensor:
            raise ContractError(
                Contract.NAMES, f"two tensors named {tensor.sn_name!r}", "unique names over graphs"
            )
        if is_input and regions.setdefault(tensor.sn_region_name, tensor) is not tensor:
            raise ContractError(
                Contract.REGIONS,
                f"two inputs in region {tensor.sn_region_name!r}",
                "one input tensor, used in both graphs",
            )


def check_sizes(tensors: Sequence[SambaTensor]) -> None:
    """Check that all tensors of a region have one shape and dtype."""
    regions: dict[str | None, SambaTensor] = {}
    for tensor in tensors:
        first = regions.setdefault(tensor.sn_region_name, tensor)
        if (first.shape, first.dtype) != (tensor.shape, tensor.dtype):
            raise ContractError(
                Contract.REGIONS, f"{first} and {tensor} in one region", "one shape and dtype"
            )
