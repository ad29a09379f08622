"""What makes this package a stand-in; nothing of it exists in the real SambaFlow.

Tests may import from here: `ContractError`, the device faults, `TRAFFIC`, `end_process`. A program
under test must not.
"""

from __future__ import annotations

from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.device import DEVICE
from sambaflow.stand_in.faults import (
    D2dUeException,
    DramUeException,
    HwException,
    NumericalException,
    ScratchpadUeException,
    TileFaultException,
)
from sambaflow.stand_in.traffic import TRAFFIC, HostTraffic

__all__ = [
    "TRAFFIC",
    "Contract",
    "ContractError",
    "D2dUeException",
    "DramUeException",
    "HostTraffic",
    "HwException",
    "NumericalException",
    "ScratchpadUeException",
    "TileFaultException",
    "end_process",
]


def end_process() -> None:
    """Give back what the end of the process would: the tiles of this process's session."""
    DEVICE.release_tiles()
