"""`sambaflow.samba.utils`: tracing at run time and small matters of a program [T]."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sambaflow.samba.samba_session import SESSION, vars_of
from sambaflow.samba.utils import argparser, pef_utils
from sambaflow.stand_in.contracts import Contract, ContractError, StandInLimitError
from sambaflow.stand_in.device import DEVICE
from sambaflow.stand_in.multigraph import MULTIGRAPH
from sambaflow.stand_in.pef import read_pef
from sambaflow.stand_in.specs import Inputs
from sambaflow.stand_in.tensors import SambaTensor
from sambaflow.stand_in.tracing import difference, trace
from sambaflow.stand_in.traffic import note_event

__all__ = [
    "argparser",
    "get_file_dir",
    "get_rank",
    "get_world_size",
    "is_main_process",
    "pef_utils",
    "set_seed",
    "trace_graph",
    "trace_multigraph",
]


def trace_graph(
    model: nn.Module,
    inputs: Inputs,
    optim: Any = None,
    init_output_grads: bool = True,
    loss_indices: Any = None,
    pef: str = "",
    mapping: str = "section",
    data_parallel_mode: str = "normal",
    transfer_device: bool = True,
) -> tuple[SambaTensor, ...]:
    """Trace a model as at compile time, make the session, move the weights [DOC: samba.utils.html].

    Returns:
        The outputs; also left as `model.output_tensors` [T: lenet.py].

    Raises:
        ContractError: The PEF is missing, damaged or of another graph; the process has a session;
            the command's arguments differ from those of the compile.
        RuntimeError: The PEF's version is not the runtime's.
    """
    if optim is not None or data_parallel_mode != "normal":
        raise StandInLimitError("the stand-in traces for inference, on one device")
    content = read_pef(pef)
    if "fingerprint" not in content:
        raise ContractError(Contract.PEF_MATCH, f"{pef} is a multigraph", "a PEF of one graph")
    check_arguments(content)
    traced = trace(model, inputs)
    found = difference(content["fingerprint"], traced.fingerprint)
    if found is not None:
        raise ContractError(
            Contract.PEF_MATCH, f"the graph is not the one of {pef}: {found}", "the compiled graph"
        )
    DEVICE.open_session(str(pef), content)
    outputs = DEVICE.load(model, traced)
    if transfer_device:
        DEVICE.transfer(model)
    model.output_tensors = outputs  # type: ignore[assignment]
    note_event("trace_graph", pef=str(pef))
    return outputs


def trace_multigraph(
    module: nn.Module, inputs: Mapping[str, Any], trace_prefix: str
) -> tuple[Any, ...]:
    """Trace one graph of a multigraph [MZ: cached_inference_compiler.py].

    Args:
        module: A converted model, or a module around one.
        inputs: By the names of forward's arguments; SambaTensors may lie in lists and tuples, and
            what is no tensor is a constant of the graph.
        trace_prefix: The graph's name.

    Returns:
        What forward returned, with SambaTensors in place of tensors.

    Raises:
        ContractError: The session was not set up, the model was not converted or has tied weights,
            or inputs have no names.
    """
    SESSION._check_setup("utils.trace_multigraph")
    return MULTIGRAPH.trace(module, inputs, trace_prefix)


def check_arguments(content: dict[str, Any]) -> None:
    """Check that a run's command line agrees with the compile's, where the program parsed one.

    Raises:
        ContractError: The batch size differs, or a PEF for inference runs without --inference.
    """
    if SESSION.args is None:
        return
    told = vars_of(SESSION.args)
    if told.get("batch_size", content["batch_size"]) != content["batch_size"]:
        raise ContractError(
            Contract.ARGUMENTS,
            f"--batch-size {told['batch_size']}",
            f"the compile's {content['batch_size']}",
        )
    if content["inference"] and not told.get("inference", True):
        raise ContractError(
            Contract.ARGUMENTS, "a run without --inference", "--inference, as the PEF was compiled"
        )


def set_seed(seed: int) -> None:
    """Seed Python's and torch's random numbers [T: logreg.py]."""
    random.seed(seed)
    torch.manual_seed(seed)


def get_file_dir(file: str) -> str:
    """The folder of a file [T: logreg.py]."""
    return str(Path(file).resolve().parent)


def get_rank() -> int:
    """The rank of this process: the stand-in has one."""
    return 0


def get_world_size() -> int:
    """How many processes share the work: one."""
    return 1


def is_main_process() -> bool:
    """Whether this is the first process: it is."""
    return True
