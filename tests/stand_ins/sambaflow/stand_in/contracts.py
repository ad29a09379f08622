"""The contracts, by name, and the error that names the one that a program broke."""

from __future__ import annotations

from enum import StrEnum


class Contract(StrEnum):
    """One name for each contract; tests and messages use these words."""

    ORDER = "order of calls"
    PATCH_FIRST = "patch before from_torch_model_"
    NAMES = "names of inputs"
    SAMBA_TENSORS = "inputs are SambaTensors"
    NONES = "None only where None was traced"
    SHAPES = "exact shapes"
    DTYPES = "exact dtypes"
    PEF_FILE = "PEF file"
    PEF_MATCH = "PEF mismatch"
    ARGUMENTS = "arguments agree with the PEF"
    ONE_SESSION = "one session per process"
    FORK = "no fork after the session"
    ONE_RUN = "one run at a time"
    TILES = "no free tiles"
    SECTIONS = "sections of the PEF"
    HYPERPARAMETERS = "hyperparameters"
    OUTPUTS = "output tensors of trace_graph"
    PLAIN_OUTPUTS = "forward returns a tuple of tensors"
    READS = "read through to_torch"
    MASK = "right padding in the mask"
    POSITIONS = "positions count from 0"
    OVERFLOW = "no step past the compiled length"
    MODEL_KEPT = "the model stays as traced"
    GRAPH_NAMES = "graphs of the PEF"
    REGIONS = "regions between graphs"
    UNTIED = "no tied weights in a multigraph"
    ADDMM = "layout of addmm"
    CHECKPOINT = "checkpoint of the PEF"
    TORCH_TENSORS = "inputs are plain torch tensors"


class ContractError(RuntimeError):
    """A program broke a contract; `contract` says which."""

    def __init__(self, contract: Contract, found: str, wanted: str) -> None:
        super().__init__(f'contract "{contract}" broken: {found}; wanted: {wanted}')
        self.contract = contract


class StandInLimitError(NotImplementedError):
    """The program may be right, but the stand-in does not do this."""
