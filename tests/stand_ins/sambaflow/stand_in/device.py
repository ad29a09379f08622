"""The device of this process: its session, its weights, its regions."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import torch
from torch import nn

from sambaflow.stand_in.content import (
    OverflowWatch,
    check_content,
    poison_padding_rows,
    real_token_ids,
    with_other_padding,
)
from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.faults import FaultInjector
from sambaflow.stand_in.models import MODELS
from sambaflow.stand_in.region import Region
from sambaflow.stand_in.settings import logits_dtype, runtime_version
from sambaflow.stand_in.specs import InputSpec
from sambaflow.stand_in.tensors import SambaTensor, output_tensor
from sambaflow.stand_in.tiles import reserve_tiles
from sambaflow.stand_in.tracing import Argins, Trace, compute, difference, plain_tensors, structure
from sambaflow.stand_in.traffic import TRAFFIC, note_event


@dataclass
class LoadedGraph:
    """A graph on the device: what was traced, and where its outputs lie."""

    model: nn.Module
    trace: Trace
    regions: tuple[Region, ...]
    outputs: tuple[SambaTensor, ...]
    structure: dict[str, Any]


class Device:
    """One per process: it holds at most one session, and a session holds one PEF."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._pef: str | None = None
        self._tiles: list[IO[bytes]] = []
        self._weights: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._running = threading.Lock()
        self._overflow = OverflowWatch()
        self.faults = FaultInjector()
        self.pef_content: dict[str, Any] = {}
        self.graph: LoadedGraph | None = None

    def open_session(self, pef: str, content: dict[str, Any]) -> None:
        """Make this process's session.

        Raises:
            ContractError: The process has one already, or tiles are missing.
            RuntimeError: The PEF's version is not the runtime's [DOC: modelzoo-troubleshooting].
        """
        if self._pid is not None:
            self.check_process()
            raise ContractError(
                Contract.ONE_SESSION,
                f"a session on {pef} while this process holds one on {self._pef}",
                "one session and one PEF in a process: start another process",
            )
        if content["version"] != runtime_version() or self.faults.version_mismatch():
            raise RuntimeError(
                "Failed to Create Session on RDU: PEF version mismatch "
                f"(PEF {content['version']}, runtime {runtime_version()})"
            )
        self._tiles = reserve_tiles(content["num_tiles"])
        self._pid, self._pef = os.getpid(), pef
        self.pef_content = content
        note_event("session", pef=pef)
        say(f"Log ID initialized to: [user][python][{os.getpid()}] at (no log: stand-in)")
        say(f"sn_create_session: PEF File: {pef}")

    @property
    def has_session(self) -> bool:
        """Whether this process made a session."""
        return self._pid is not None

    def release_tiles(self) -> None:
        """Give the tiles back."""
        for file in self._tiles:
            file.close()
        self._tiles = []

    def check_process(self) -> None:
        """Check that this process made the session.

        Raises:
            ContractError: Another did, and this one was forked from it.
        """
        if self._pid != os.getpid():
            raise ContractError(
                Contract.FORK,
                f"process {os.getpid()} uses the session of process {self._pid}",
                "a process started by spawn, with a session of its own",
            )

    def load(self, model: nn.Module, trace: Trace) -> tuple[SambaTensor, ...]:
        """Put a traced graph on the device.

        Returns:
            Its outputs: the only tensors that runs of it may be asked for.
        """
        regions = tuple(
            Region(f"output_{place}", one.shape, on_device(one.dtype))
            for place, one in enumerate(trace.outputs)
        )
        outputs = tuple(output_tensor(region, region.name) for region in regions)
        self.graph = LoadedGraph(model, trace, regions, outputs, structure(model))
        return outputs

    def transfer(self, model: nn.Module) -> None:
        """Copy a model's parameters and buffers to the device.

        Raises:
            ContractError: Parameters were replaced since the conversion, or have no values.
        """
        MODELS.check_kept(model, "a transfer of weights")
        self.transfer_converted(model)

    def transfer_converted(self, model: nn.Module) -> None:
        """Copy the parameters and buffers of a model, or of a module around one, to the device.

        Raises:
            ContractError: Some have no values.
        """
        named = [*model.named_parameters(), *model.named_buffers()]
        empty = [name for name, value in named if value.is_meta]
        if empty:
            raise ContractError(
                Contract.ORDER, f"{empty[0]} has no values to transfer", "weights loaded first"
            )
        size_bytes = 0
        for _, value in named:
            copy = value.detach().as_subclass(torch.Tensor).clone()
            self._weights[id(value)] = (value, copy)
            size_bytes += copy.numel() * copy.element_size()
        TRAFFIC.transferred_weights(size_bytes)

    def fetch(self, model: nn.Module) -> None:
        """Copy the device's weights back into a model."""
        for parameter in model.parameters():
            if id(parameter) in self._weights:
                parameter.data.copy_(self._weights[id(parameter)][1])

    def weights_of(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """A model's weights as they were last transferred, by name.

        Raises:
            ContractError: Some never were.
        """
        weights: dict[str, torch.Tensor] = {}
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if id(value) not in self._weights:
                raise ContractError(
                    Contract.ORDER,
                    f"session.run before any weights were transferred ({name})",
                    "trace_graph with transfer_device, or samba.session.to_rdu(model)",
                )
            weights[name] = self._weights[id(value)][1]
        return weights

    @contextmanager
    def one_run(self) -> Iterator[None]:
        """Hold the device for one run.

        Raises:
            ContractError: A run is under way in another thread.
        """
        if not self._running.acquire(blocking=False):
            raise ContractError(
                Contract.ONE_RUN, "session.run while another thread runs", "one run at a time"
            )
        try:
            yield
        finally:
            self._running.release()

    def run(self, graph: LoadedGraph, inputs: Mapping[str, torch.Tensor], p: float) -> None:
        """Compute one step and overwrite the graph's output regions.

        Args:
            graph: The graph, as loaded.
            inputs: Checked tensors by name.
            p: Probability of dropout.

        Raises:
            ContractError: The inputs hold what they may not, or the model changed since its trace.
            RuntimeError: An injected fault.
        """
        check_content(inputs)
        self._overflow.check(inputs)
        changed = difference(graph.structure, structure(graph.model))
        if changed is not None:
            raise ContractError(Contract.MODEL_KEPT, changed, "no change after trace_graph")
        weights = self.weights_of(graph.model)
        self.begin_run(inputs.values(), real_token_ids(inputs))
        results = self._compute(graph, inputs, weights, p)
        for region, result in zip(graph.regions, results, strict=True):
            region.write(poison_padding_rows(result, inputs).to(region.dtype))

    def begin_run(
        self, inputs: Iterable[torch.Tensor], real_token_ids: torch.Tensor | None
    ) -> None:
        """Count a run and its inputs' bytes, and fail where a test asked for it.

        Raises:
            RuntimeError: An injected fault.
        """
        TRAFFIC.ran(sum(value.numel() * value.element_size() for value in inputs))
        self.faults.before_run(TRAFFIC.num_runs, real_token_ids)

    def _compute(
        self,
        graph: LoadedGraph,
        inputs: Mapping[str, torch.Tensor],
        weights: Mapping[str, torch.Tensor],
        p: float,
    ) -> tuple[torch.Tensor, ...]:
        by_name = with_other_padding(inputs, TRAFFIC.num_runs)
        in_order = [value_of(spec, by_name) for spec in graph.trace.inputs]
        keys = graph.trace.input_keys
        args = in_order if keys is None else []
        kwargs = {} if keys is None else dict(zip(keys, in_order, strict=True))
        result = compute(graph.model, weights, args, kwargs, Argins(p))
        return plain_tensors(graph.model, result)


def value_of(spec: InputSpec, by_name: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """The value of one traced input."""
    return None if spec.name is None else by_name[spec.name]


def on_device(dtype: torch.dtype) -> torch.dtype:
    """The dtype of an output: floating ones as the settings say."""
    return logits_dtype() if dtype.is_floating_point else dtype


def say(line: str) -> None:
    """Print as a native runtime does: straight to standard output."""
    os.write(1, f"{line}\n".encode())


DEVICE = Device()
