"""Graphs that another process can run: what a PEF holds for the stand-in of `rdu_engine`.

A graph is exported by torch with its weights and its inputs as arguments, so that the PEF holds no
weights, as a real one holds none. Buffers are constants of the graph and do lie in the PEF: no
checkpoint has them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from sambaflow.stand_in.contracts import StandInLimitError
from sambaflow.stand_in.tensors import SambaTensor
from sambaflow.stand_in.tracing import ByForward, widened

Weights = Mapping[str, torch.Tensor]
#: Weights by symbol and inputs by region, to outputs in their order.
Program = Callable[[Weights, Mapping[str, torch.Tensor]], Sequence[torch.Tensor]]


def weight_symbol(name: str, parameter: Any) -> str:
    """The symbol of a weight: the name that its conversion gave it, shared by all graphs."""
    return str(getattr(parameter, "sn_name", None) or name.replace(".", "__"))


def weight_specs(module: nn.Module) -> dict[str, list[Any]]:
    """Shape and dtype of each weight of a module, by symbol."""
    return {
        weight_symbol(name, one): [list(one.shape), str(one.dtype)]
        for name, one in module.named_parameters()
    }


class ByWeights(nn.Module):
    """A graph as a function of its weights and inputs; it owns neither."""

    def __init__(self, module: nn.Module, leaves: Sequence[Any], tree: TreeSpec) -> None:
        super().__init__()
        # In a tuple: the model's own parameters are no part of this module.
        self._held = (ByForward(module), tuple(leaves), tree)

    def forward(self, weights: Weights, inputs: Mapping[str, torch.Tensor]) -> Any:
        """Outputs as they come, in their order."""
        model, leaves, tree = self._held
        named = {
            name: weights[weight_symbol(name.removeprefix("model."), one)]
            for name, one in model.named_parameters()
        }
        values = [
            widened(inputs[str(leaf.sn_region_name)]) if isinstance(leaf, SambaTensor) else leaf
            for leaf in leaves
        ]
        result = functional_call(model, named, ((), tree_unflatten(values, tree)))
        return tuple(tree_flatten(result)[0])


def exported(module: nn.Module, leaves: Sequence[Any], tree: TreeSpec) -> str:
    """A traced graph as text, for `loaded`.

    Raises:
        StandInLimitError: torch cannot export it.
    """
    weights = {
        weight_symbol(name, one): torch.zeros(one.shape, dtype=one.dtype)
        for name, one in module.named_parameters()
    }
    inputs = {
        str(leaf.sn_region_name): torch.zeros(leaf.shape, dtype=leaf.dtype)
        for leaf in leaves
        if isinstance(leaf, SambaTensor)
    }
    by_weights = ByWeights(module, leaves, tree)
    archive = io.BytesIO()
    try:
        with torch.no_grad():
            program = torch.export.export(by_weights, (weights, inputs), strict=False)
        torch.export.save(program, archive)
    except Exception as error:
        raise StandInLimitError(f"torch cannot export {type(module).__name__}: {error}") from error
    return base64.b64encode(archive.getvalue()).decode()


def loaded(text: str) -> Program:
    """What `exported` wrote, to be run."""
    program = torch.export.load(io.BytesIO(base64.b64decode(text))).module()

    def run(weights: Weights, inputs: Mapping[str, torch.Tensor]) -> Sequence[torch.Tensor]:
        with torch.no_grad():
            return program(dict(weights), dict(inputs))  # type: ignore[no-any-return]

    return run
