"""What a PEF knows of a graph's inputs, and whether a program's inputs are just so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.tensors import SambaTensor

Inputs = Sequence[SambaTensor | None] | Mapping[str, SambaTensor | None]


@dataclass(frozen=True)
class InputSpec:
    """One input of a traced graph; a None placeholder has no name."""

    name: str | None
    shape: tuple[int, ...] = ()
    dtype: str = ""

    def as_json(self) -> list[Any]:
        """For the PEF."""
        return [self.name, list(self.shape), self.dtype]


def input_values(inputs: Inputs) -> list[Any]:
    """The values of inputs that came as a sequence or as a dict."""
    return list(inputs.values() if isinstance(inputs, Mapping) else inputs)


def specs_of(inputs: Inputs, doing: str) -> tuple[InputSpec, ...]:
    """The specs of inputs, in their order.

    Raises:
        ContractError: One is no SambaTensor, has no name, or shares its name with another.
    """
    specs: list[InputSpec] = []
    seen: set[str] = set()
    for place, value in enumerate(input_values(inputs)):
        if value is None:
            specs.append(InputSpec(name=None))
            continue
        if not isinstance(value, SambaTensor):
            raise ContractError(
                Contract.SAMBA_TENSORS,
                f"{doing}: input {place} is a {type(value).__module__}.{type(value).__name__}",
                "samba.from_torch_tensor(tensor, name=...)",
            )
        if not value.sn_name:
            raise ContractError(
                Contract.NAMES, f"{doing}: input {place} has no name", "a name for every input"
            )
        if value.sn_name in seen:
            raise ContractError(
                Contract.NAMES, f"{doing}: two inputs named {value.sn_name!r}", "unique names"
            )
        seen.add(value.sn_name)
        specs.append(InputSpec(value.sn_name, tuple(value.shape), str(value.dtype)))
    return tuple(specs)


def check_inputs(traced: Sequence[InputSpec], inputs: Inputs) -> dict[str, torch.Tensor]:
    """Check the inputs of a run against those of the trace.

    Inputs bind by name. Placeholders stay where they were [T: inference], or all are left out [T:
    training].

    Returns:
        The torch tensors by name.

    Raises:
        ContractError: A name, place of None, shape or dtype differs.
    """
    found = specs_of(inputs, "session.run")
    wanted_names = {spec.name for spec in traced if spec.name is not None}
    found_names = {spec.name for spec in found if spec.name is not None}
    if found_names != wanted_names:
        raise ContractError(
            Contract.NAMES,
            f"session.run with the names {sorted(found_names)}",
            f"exactly {sorted(wanted_names)}",
        )
    check_placeholders(traced, found)
    wanted = {spec.name: spec for spec in traced}
    for spec in found:
        if spec.name is not None:
            check_spec(wanted[spec.name], spec)
    tensors = (value for value in input_values(inputs) if value is not None)
    return {tensor.sn_name: tensor.torch_tensor() for tensor in tensors}


def check_placeholders(traced: Sequence[InputSpec], found: Sequence[InputSpec]) -> None:
    """Check that None stands where it was traced, or nowhere."""
    wanted_places = [place for place, spec in enumerate(traced) if spec.name is None]
    places = [place for place, spec in enumerate(found) if spec.name is None]
    if places and (places != wanted_places or len(found) != len(traced)):
        raise ContractError(
            Contract.NONES,
            f"session.run with None at {places} of {len(found)} inputs",
            f"None at {wanted_places} of {len(traced)}, as traced, or no None at all",
        )


def check_spec(wanted: InputSpec, found: InputSpec) -> None:
    """Check one input's shape and dtype."""
    if found.shape != wanted.shape:
        raise ContractError(
            Contract.SHAPES, f"input {found.name!r} of shape {found.shape}", f"{wanted.shape}"
        )
    if found.dtype != wanted.dtype:
        raise ContractError(
            Contract.DTYPES, f"input {found.name!r} of dtype {found.dtype}", wanted.dtype
        )
