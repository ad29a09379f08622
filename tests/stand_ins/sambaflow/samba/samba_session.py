"""`samba.session`: the session object that a process has [DOC: samba.session.html]."""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sambaflow.samba.graph import FwdGraph
from sambaflow.stand_in.argins import checked_p
from sambaflow.stand_in.contracts import Contract, ContractError, StandInLimitError
from sambaflow.stand_in.device import DEVICE, LoadedGraph, say
from sambaflow.stand_in.multigraph import MULTIGRAPH
from sambaflow.stand_in.pef import pef_path, read_pef, write_pef
from sambaflow.stand_in.specs import Inputs, check_inputs
from sambaflow.stand_in.tensors import SambaTensor
from sambaflow.stand_in.tracing import trace
from sambaflow.stand_in.traffic import note_event

FORWARD = "fwd"
TRAINING_SECTIONS = ("bckwd", "gradnorm", "opt")


class SambaSession:
    """Compiles and runs; a process has one, `samba.session`."""

    def __init__(self, pef_path: str = "") -> None:
        self.pef_path = pef_path
        self.buffer_dict: dict[str, SambaTensor] = {}
        self.args: Any = None

    def setup(self, args: Any) -> None:
        """Take the arguments of the command [MZ]: what `parse_app_args` does by itself."""
        self.args = args

    def compile(
        self,
        model: nn.Module,
        inputs: Inputs,
        optimizers: Any = None,
        name: str | None = None,
        app_dir: str | None = None,
        config_dict: Mapping[str, Any] | None = None,
        pef_metadata: Mapping[str, Any] | None = None,
        squeeze_bs_dim: bool | None = None,
        init_output_grads: bool | None = None,
        inference: bool | None = None,
    ) -> str:
        """Trace a model and write its PEF [T; MZ; SEED].

        Where the PEF goes, and whether it is for inference, the command line says (`inference=` is
        deprecated [SEED]).

        Returns:
            The PEF's path [MZ].

        Raises:
            ContractError: The command was not parsed, the model was not converted, or an input has
                no name.
        """
        if inference is not None:
            warnings.warn("inference= is deprecated: --inference", DeprecationWarning, stacklevel=2)
        self._check_setup("session.compile")
        told = {**vars_of(self.args), **(config_dict or {})}
        if optimizers is not None and told.get("inference"):
            raise ContractError(
                Contract.SECTIONS, "an optimizer with --inference", "no optimizer for inference"
            )
        path, content = self._pef_of(told, name, pef_metadata)
        content["fingerprint"] = trace(model, inputs).fingerprint
        return self._written(path, content)

    def add_graph(self, graph: FwdGraph) -> None:
        """Add a traced graph to the multigraph [MZ], at compile time and at run time alike.

        Raises:
            ContractError: Its name is taken, or its tensors are not those of a trace.
        """
        MULTIGRAPH.add(graph)

    def compile_multigraph(
        self,
        name: str | None = None,
        config_dict: Mapping[str, Any] | None = None,
        pef_metadata: Mapping[str, Any] | None = None,
        enable_hypersection: bool = True,
        inference: bool = True,
    ) -> str:
        """Write one PEF of all graphs that were added [MZ].

        Returns:
            The PEF's path.

        Raises:
            ContractError: No graph was added, setup is missing, regions are shared wrongly, or it
                is not for inference [DOC: multigraph.html].
        """
        if not inference:
            raise ContractError(
                Contract.SECTIONS, "a multigraph for training", "inference=True: all it supports"
            )
        self._check_setup("session.compile_multigraph")
        told = {**vars_of(self.args), **(config_dict or {}), "inference": True}
        path, content = self._pef_of(told, name, pef_metadata)
        content["graphs"] = MULTIGRAPH.description()
        content["programs"] = MULTIGRAPH.programs()
        return self._written(path, content)

    def init_multigraph_runtime(self, pef: str) -> None:
        """Make the session for the graphs that were added, and transfer their weights [MZ].

        Raises:
            ContractError: The graphs are not those of the PEF; or as for `trace_graph`.
            RuntimeError: The PEF's version is not the runtime's.
        """
        self._check_setup("session.init_multigraph_runtime")
        content = read_pef(pef)
        MULTIGRAPH.check_same(pef, content)
        DEVICE.open_session(str(pef), content)
        MULTIGRAPH.start()
        note_event("init_multigraph_runtime", pef=str(pef))

    def get_tensors_by_name(self, names: Sequence[str]) -> list[SambaTensor]:
        """The tensors of regions, whose `.data` is a transfer to the host [MZ: model_session.py].

        Raises:
            ContractError: No graph has such a region.
        """
        return [MULTIGRAPH.region_tensor(name) for name in names]

    def _check_setup(self, doing: str) -> None:
        if self.args is None:
            raise ContractError(
                Contract.ORDER,
                f"{doing} before the command's arguments were parsed",
                "parse_app_args (or samba.session.setup) first",
            )

    def _pef_of(
        self, told: Mapping[str, Any], name: str | None, metadata: Mapping[str, Any] | None
    ) -> tuple[Path, dict[str, Any]]:
        pef_name = told.get("pef_name") or f"{time.strftime('%m%d%H%M%S')}_{os.getpid()}"
        path = pef_path(told.get("output_folder") or "./out", pef_name)
        content = {
            "inference": bool(told.get("inference")),
            "batch_size": told.get("batch_size") or 1,
            "num_tiles": told.get("num_tiles") or 4,
            "arch": told.get("arch"),
            "name": name,
            "metadata": dict(metadata or {}),
        }
        return path, content

    def _written(self, path: Path, content: dict[str, Any]) -> str:
        write_pef(path, content)
        note_event("compile", pef=str(path))
        say(f"[info ] PEF file {path} created")
        return str(path)

    def to_rdu(self, model: nn.Module) -> None:
        """Copy a model's weights to the device [T: checkpoint_utils.py].

        Before `trace_graph` it is allowed; the trace then transfers what the model holds.
        """
        DEVICE.transfer(model)

    def to_cpu(self, model: nn.Module) -> None:
        """Copy the device's weights back into the model [T: checkpoint_utils.py]."""
        DEVICE.fetch(model)

    def run(
        self,
        input_tensors: Inputs,
        output_tensors: Sequence[SambaTensor] | None = None,
        hyperparam_dict: Mapping[str, float] | None = None,
        section_types: Sequence[str] | None = None,
        data_parallel: bool = False,
        reduce_on_rdu: bool = False,
        graph_name: str | None = None,
    ) -> tuple[SambaTensor, ...]:
        """Run one step [T]; without `output_tensors`, all that were traced [ALCF].

        Returns:
            The outputs in their order. The next run overwrites what they show.

        Raises:
            ContractError: A contract is broken; its name is in the message.
            RuntimeError: An injected fault of the device.
        """
        if data_parallel or reduce_on_rdu:
            raise StandInLimitError("the stand-in runs on one device")
        if DEVICE.has_session and MULTIGRAPH.is_started:
            with DEVICE.one_run():
                DEVICE.check_process()
                check_sections(section_types, inference=True)
                return MULTIGRAPH.run(graph_name, input_tensors, output_tensors, hyperparam_dict)
        if graph_name is not None:
            raise ContractError(
                Contract.ORDER,
                f"session.run of graph {graph_name!r} without a multigraph",
                "session.init_multigraph_runtime(pef) first",
            )
        if not DEVICE.has_session or DEVICE.graph is None:
            raise ContractError(
                Contract.ORDER,
                "session.run before trace_graph",
                "utils.trace_graph(..., pef=) first",
            )
        with DEVICE.one_run():
            DEVICE.check_process()
            graph = DEVICE.graph
            check_sections(section_types, inference=DEVICE.pef_content["inference"])
            p = checked_p(hyperparam_dict, graph.trace.argins)
            check_outputs(output_tensors, graph)
            DEVICE.run(graph, check_inputs(graph.trace.inputs, input_tensors), p)
            return graph.outputs


def vars_of(args: Any) -> dict[str, Any]:
    """The arguments of a command as a dict."""
    return vars(args) if isinstance(args, argparse.Namespace) else dict(args.__dict__)


def check_sections(section_types: Sequence[str] | None, *, inference: bool) -> None:
    """Check the sections that a run asks for; none means all of the PEF.

    Raises:
        ContractError: One is unknown, or not in a PEF for inference.
    """
    in_pef = (FORWARD,) if inference else (FORWARD, *TRAINING_SECTIONS)
    asked = in_pef if section_types is None else tuple(one.lower() for one in section_types)
    for section in asked:
        if section not in (FORWARD, *TRAINING_SECTIONS):
            raise ContractError(Contract.SECTIONS, f"unknown section {section!r}", f"{in_pef}")
        if section not in in_pef:
            raise ContractError(
                Contract.SECTIONS, f"section {section!r} of a PEF for inference", f"{in_pef}"
            )
    if asked != (FORWARD,):
        raise StandInLimitError(f"the stand-in runs {FORWARD!r} alone, not {asked}")


def check_outputs(output_tensors: Sequence[SambaTensor] | None, graph: LoadedGraph) -> None:
    """Check that a run is asked for the very tensors that the trace gave.

    Raises:
        ContractError: Others were given, or in another order.
    """
    if output_tensors is None:
        return
    same = isinstance(output_tensors, Sequence) and len(output_tensors) == len(graph.outputs)
    if not same or any(a is not b for a, b in zip(output_tensors, graph.outputs, strict=True)):
        raise ContractError(
            Contract.OUTPUTS,
            "output_tensors that trace_graph did not return",
            "the object that trace_graph returned",
        )


SESSION = SambaSession()
