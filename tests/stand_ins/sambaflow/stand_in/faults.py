"""Device faults that a test asks for, through one environment variable.

`SAMBAFLOW_STAND_IN_FAULTS` is a JSON object, or a list of them. Each has a `kind`:

- `hw_exception`, `tile_fault`, `dram_ue`, `scratchpad_ue`, `d2d_ue`: raised by run number `at_run`
  of a process (1 is the first, and the default); the device stays broken for that process.
- `numerical`: raised for each run whose real tokens hold `token_id`; the device stays sound.
- `hang`: run number `at_run` does not return for `seconds` (a day unless told); with `hold_gil` the
  interpreter is held too.
- `crash`: run number `at_run` ends the process by SIGSEGV.
- `pef_version_mismatch`: no session can be made.

`once_file` makes a fault happen once over all processes: the first to create that file has it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from sambaflow.stand_in.settings import fault_settings

DAY_S = 86_400


# The names are the wheel's [WHL]. Their module and their bases are not public: so nothing but the
# name should be relied on, and each is a bare RuntimeError here.
class HwException(RuntimeError):
    """The hardware failed."""


class TileFaultException(RuntimeError):
    """A tile failed."""


class DramUeException(RuntimeError):
    """An uncorrectable error of the DRAM."""


class ScratchpadUeException(RuntimeError):
    """An uncorrectable error of a scratchpad."""


class D2dUeException(RuntimeError):
    """An uncorrectable error between dies."""


class NumericalException(RuntimeError):
    """The numbers of this input cannot be computed."""


HARDWARE_FAULTS: dict[str, type[RuntimeError]] = {
    "hw_exception": HwException,
    "tile_fault": TileFaultException,
    "dram_ue": DramUeException,
    "scratchpad_ue": ScratchpadUeException,
    "d2d_ue": D2dUeException,
}
OTHER_FAULTS = ("numerical", "hang", "crash", "pef_version_mismatch")


class FaultInjector:
    """Decides before each run whether the device fails."""

    def __init__(self) -> None:
        self._broken_by: RuntimeError | None = None

    def version_mismatch(self) -> bool:
        """Whether the next session must fail by its PEF's version."""
        return any(
            fault["kind"] == "pef_version_mismatch" and is_due_once(fault)
            for fault in checked_faults()
        )

    def before_run(self, run: int, real_token_ids: torch.Tensor | None) -> None:
        """Fail, hang or die, where a test asked for it.

        Args:
            run: Number of this run in its process, from 1.
            real_token_ids: The tokens that are not padding, of any shape; None without token ids.

        Raises:
            RuntimeError: One of the classes of this module.
        """
        if self._broken_by is not None:
            raise self._broken_by
        for fault in checked_faults():
            if fault["kind"] == "numerical":
                fail_by_numbers(fault, real_token_ids)
            elif fault.get("at_run", 1) == run and is_due_once(fault):
                self._fail(fault, run)

    def _fail(self, fault: dict[str, Any], run: int) -> None:
        kind = fault["kind"]
        if kind in HARDWARE_FAULTS:
            self._broken_by = HARDWARE_FAULTS[kind](f"injected {kind} at run {run}")
            raise self._broken_by
        if kind == "hang":
            hang(fault.get("seconds", DAY_S), hold_gil=fault.get("hold_gil", False))
        elif kind == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)


def checked_faults() -> list[dict[str, Any]]:
    """The faults of the environment; a kind that nobody knows is a mistake of the test."""
    faults = fault_settings()
    for fault in faults:
        if fault.get("kind") not in (*HARDWARE_FAULTS, *OTHER_FAULTS):
            known = ", ".join((*HARDWARE_FAULTS, *OTHER_FAULTS))
            raise ValueError(f"unknown fault {fault!r}; known kinds: {known}")
    return faults


def is_due_once(fault: dict[str, Any]) -> bool:
    """Whether this fault has its marker still to itself; without a marker it always has."""
    if "once_file" not in fault:
        return True
    try:
        Path(fault["once_file"]).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def fail_by_numbers(fault: dict[str, Any], real_token_ids: torch.Tensor | None) -> None:
    """Raise for an input that holds the token, each time."""
    if real_token_ids is None or not (real_token_ids == fault["token_id"]).any():
        return
    if is_due_once(fault):
        raise NumericalException(f"injected for token id {fault['token_id']}")


def hang(seconds: float, *, hold_gil: bool) -> None:
    """Do nothing for long; a native call that keeps the interpreter is the worse form."""
    if hold_gil:
        ctypes.PyDLL(None).sleep(int(seconds))
    else:
        time.sleep(seconds)
