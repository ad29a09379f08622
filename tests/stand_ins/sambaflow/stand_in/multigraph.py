"""A multigraph: several graphs in one PEF, which share weights and regions of the device [MZ]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from sambaflow.stand_in.argins import checked_p
from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.device import DEVICE
from sambaflow.stand_in.kv_cache import (
    KvCacheRules,
    check_published,
    real_tokens,
    with_other_padding,
)
from sambaflow.stand_in.models import MODELS
from sambaflow.stand_in.programs import exported, weight_specs
from sambaflow.stand_in.region import Region
from sambaflow.stand_in.sharing import (
    check_leaves,
    check_regions,
    check_sizes,
    described_leaf,
    same_objects,
)
from sambaflow.stand_in.specs import InputSpec, check_spec, input_values, specs_of
from sambaflow.stand_in.tensors import SambaTensor, output_tensor
from sambaflow.stand_in.tracing import (
    Argins,
    Fingerprint,
    Recorder,
    compute,
    difference,
    stand_in_value,
    structure,
    traceable_weights,
)
from sambaflow.stand_in.traffic import TRAFFIC


@dataclass(frozen=True)
class FwdGraph:
    """A traced graph under the name by which it is run."""

    inputs: Mapping[str, Any]
    outputs: Any
    name: str


@dataclass
class TracedGraph:
    """What `trace_multigraph` made of a module."""

    module: nn.Module
    leaves: list[Any]  # SambaTensors, and constants of the graph
    tree: TreeSpec
    outputs: list[SambaTensor]
    argins: dict[str, float]
    fingerprint: Fingerprint

    @property
    def inputs(self) -> list[SambaTensor]:
        """The inputs that are tensors."""
        return [leaf for leaf in self.leaves if isinstance(leaf, SambaTensor)]


class Multigraph:
    """The graphs of this process, and after `start` their regions."""

    def __init__(self) -> None:
        self._traced: list[TracedGraph] = []
        self._graphs: dict[str, TracedGraph] = {}
        self._regions: dict[str, Region] = {}
        self._cache = KvCacheRules()

    @property
    def is_started(self) -> bool:
        """Whether a runtime holds the graphs."""
        return bool(self._regions)

    def trace(self, module: nn.Module, inputs: Mapping[str, Any], prefix: str) -> Any:
        """Trace a module; see `trace_multigraph`."""
        MODELS.check_converted(module, "tracing")
        leaves, tree = tree_flatten(dict(inputs))
        check_leaves(leaves)
        kwargs = tree_unflatten(
            [stand_in_value(leaf) if isinstance(leaf, SambaTensor) else leaf for leaf in leaves],
            tree,
        )
        recorder = Recorder()
        result = compute(module, traceable_weights(module), (), kwargs, recorder)
        values, result_tree = tree_flatten(result)
        if not all(isinstance(value, torch.Tensor) for value in values):
            raise ContractError(
                Contract.PLAIN_OUTPUTS,
                f"forward of {type(module).__name__} gave a {type(result).__name__}",
                "tuples of tensors",
            )
        outputs = [
            SambaTensor(shape=value.shape, dtype=value.dtype, name=f"{prefix}__output_{place}")
            for place, value in enumerate(values)
        ]
        fingerprint = {
            **structure(module),
            "inputs": [described_leaf(leaf) for leaf in leaves],
            "outputs": [described_leaf(output) for output in outputs],
            "calls": recorder.calls,
        }
        argins = {} if recorder.dropout is None else {"p": recorder.dropout}
        self._traced.append(TracedGraph(module, leaves, tree, outputs, argins, fingerprint))
        return tree_unflatten(outputs, result_tree)

    def add(self, graph: FwdGraph) -> None:
        """Add a graph; see `session.add_graph`."""
        if graph.name in self._graphs:
            raise ContractError(
                Contract.GRAPH_NAMES, f"two graphs named {graph.name!r}", "unique names"
            )
        outputs = tree_flatten(graph.outputs)[0]
        inputs = tree_flatten(dict(graph.inputs))[0]
        for traced in self._traced:
            if same_objects(outputs, traced.outputs) and same_objects(inputs, traced.leaves):
                self._graphs[graph.name] = traced
                return
        raise ContractError(
            Contract.ORDER,
            f"graph {graph.name!r} with tensors that were not traced together",
            "the inputs and outputs of one trace_multigraph",
        )

    def description(self) -> dict[str, Any]:
        """The graphs and their regions, for the PEF.

        Raises:
            ContractError: No graph was added, tensors share names or regions wrongly, or a graph
                of a published name has other inputs.
        """
        if not self._graphs:
            raise ContractError(Contract.ORDER, "a multigraph without graphs", "add_graph first")
        check_regions(
            [one for graph in self._graphs.values() for one in graph.inputs], is_input=True
        )
        check_regions(
            [one for graph in self._graphs.values() for one in graph.outputs], is_input=False
        )
        check_sizes([one for graph in self._graphs.values() for one in tensors_of(graph)])
        for name, graph in self._graphs.items():
            check_published(name, graph.inputs)
        return {
            name: {
                **graph.fingerprint,
                "regions": [one.sn_region_name for one in tensors_of(graph)],
            }
            for name, graph in self._graphs.items()
        }

    def programs(self) -> dict[str, Any]:
        """What another process needs to run the graphs, for the PEF; see `programs.py`."""
        weights: dict[str, Any] = {}
        for graph in self._graphs.values():
            weights |= weight_specs(graph.module)
        return {
            "weights": weights,
            "graphs": {
                name: {
                    "inputs": [described_symbol(one) for one in graph.inputs],
                    "outputs": [described_symbol(one) for one in graph.outputs],
                    "program": exported(graph.module, graph.leaves, graph.tree),
                }
                for name, graph in self._graphs.items()
            },
        }

    def check_same(self, pef: str, content: Mapping[str, Any]) -> None:
        """Check that the graphs of this process are those of a PEF.

        Raises:
            ContractError: A graph is missing, is one too many, or differs.
        """
        wanted, found = content.get("graphs", {}), self.description()
        if wanted.keys() != found.keys():
            raise ContractError(
                Contract.GRAPH_NAMES,
                f"graphs {sorted(found)} for {pef}",
                f"those of the compile, {sorted(wanted)}",
            )
        for name, graph in wanted.items():
            differing = difference(graph, found[name])
            if differing is not None:
                raise ContractError(
                    Contract.PEF_MATCH,
                    f"graph {name!r} is not the one of {pef}: {differing}",
                    "the compiled graph",
                )

    def start(self) -> None:
        """Make the regions, and transfer the weights."""
        for graph in self._graphs.values():
            for tensor in tensors_of(graph):
                name = tensor.sn_region_name
                assert name is not None
                if name not in self._regions:
                    self._regions[name] = Region(name, tensor.shape, tensor.dtype)
            for output in graph.outputs:
                assert output.sn_region_name is not None
                output._region = self._regions[output.sn_region_name]
        for module in {id(one.module): one.module for one in self._graphs.values()}.values():
            DEVICE.transfer_converted(module)

    def region_tensor(self, name: str) -> SambaTensor:
        """The tensor of a region."""
        if name not in self._regions:
            raise ContractError(
                Contract.REGIONS, f"no region named {name!r}", f"one of {sorted(self._regions)}"
            )
        return output_tensor(self._regions[name], name)

    def run(
        self,
        name: str | None,
        inputs: Any,
        outputs: Sequence[SambaTensor] | None,
        hyperparam_dict: Mapping[str, float] | None,
    ) -> tuple[SambaTensor, ...]:
        """Run one graph; see `session.run`. What is not given stays as it is on the device."""
        if name not in self._graphs:
            raise ContractError(
                Contract.GRAPH_NAMES, f"session.run of graph {name!r}", f"{sorted(self._graphs)}"
            )
        graph = self._graphs[name]
        if outputs is not None and not same_objects(outputs, graph.outputs):
            raise ContractError(
                Contract.OUTPUTS, "output_tensors of another trace", "those of this graph"
            )
        p = checked_p(hyperparam_dict, graph.argins)
        given = given_values(graph, inputs)
        held = self._held(graph, given)
        self._cache.check(name, self._graphs, held)
        weights = DEVICE.weights_of(graph.module)
        DEVICE.begin_run(given.values(), real_tokens(given))
        for region, value in given.items():
            self._regions[region].write(value.clone())
        held = with_other_padding(name, held, TRAFFIC.num_runs)
        kwargs = tree_unflatten([value_of(leaf, held) for leaf in graph.leaves], graph.tree)
        results = tree_flatten(compute(graph.module, weights, (), kwargs, Argins(p)))[0]
        for output, result in zip(graph.outputs, results, strict=True):
            assert output.sn_region_name is not None
            self._regions[output.sn_region_name].write(result.to(output.dtype).clone())
        return tuple(graph.outputs)

    def _held(
        self, graph: TracedGraph, given: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        held = dict(given)
        for tensor in graph.inputs:
            region = tensor.sn_region_name
            assert region is not None
            if region in held:
                continue
            value = self._regions[region].device_value()
            if value is None:
                raise ContractError(
                    Contract.REGIONS,
                    f"region {region!r} was never written",
                    "an input for it, or a graph that fills it, such as the prefill",
                )
            held[region] = value
        return held


def tensors_of(graph: TracedGraph) -> list[SambaTensor]:
    """All tensors of a graph."""
    return [*graph.inputs, *graph.outputs]


def described_symbol(tensor: SambaTensor) -> list[Any]:
    """A tensor by its region, which is its symbol in the PEF."""
    return InputSpec(tensor.sn_region_name, tuple(tensor.shape), str(tensor.dtype)).as_json()


def given_values(graph: TracedGraph, inputs: Any) -> dict[str, torch.Tensor]:
    """The values that a run gives, by region, checked by name, shape and dtype."""
    wanted = {
        tensor.sn_region_name: InputSpec(
            tensor.sn_region_name, tuple(tensor.shape), str(tensor.dtype)
        )
        for tensor in graph.inputs
    }
    values = [value for value in input_values(inputs) if value is not None]
    for spec in specs_of(values, "session.run"):
        if spec.name not in wanted:
            raise ContractError(
                Contract.NAMES,
                f"session.run with {spec.name!r}",
                f"inputs of this graph: {sorted(str(name) for name in wanted)}",
            )
        check_spec(wanted[spec.name], spec)
    return {value.sn_name: value.torch_tensor() for value in values}


def value_of(leaf: Any, held: Mapping[str, torch.Tensor]) -> Any:
    """What forward gets for one leaf of its inputs."""
    return held[str(leaf.sn_region_name)] if isinstance(leaf, SambaTensor) else leaf


MULTIGRAPH = Multigraph()
