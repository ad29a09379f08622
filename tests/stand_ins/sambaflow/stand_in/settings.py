"""What tests can ask of the stand-in: environment variables, so that child processes obey too."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import sambaflow

FAULTS = "SAMBAFLOW_STAND_IN_FAULTS"
LOGITS_DTYPE = "SAMBAFLOW_STAND_IN_LOGITS_DTYPE"
RUNTIME_VERSION = "SAMBAFLOW_STAND_IN_RUNTIME_VERSION"
TILES = "SAMBAFLOW_STAND_IN_TILES"
EVENTS = "SAMBAFLOW_STAND_IN_EVENTS"


@dataclass(frozen=True)
class TileTable:
    """A host's tiles: one lock file each, in a folder that the processes of a test share."""

    folder: Path
    count: int


def fault_settings() -> list[dict[str, Any]]:
    """The faults to inject, one object each; a lone object is a list of one."""
    told = json.loads(os.environ.get(FAULTS, "[]"))
    return told if isinstance(told, list) else [told]


def logits_dtype() -> torch.dtype:
    """The dtype in which floating outputs reach the host; the tutorial's is not public."""
    name = os.environ.get(LOGITS_DTYPE, "float32")
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in dtypes:
        raise ValueError(f"{LOGITS_DTYPE}={name!r}: wanted one of {sorted(dtypes)}")
    return dtypes[name]


def runtime_version() -> str:
    """The version of the host's runtime, which a PEF's version must equal."""
    return os.environ.get(RUNTIME_VERSION, sambaflow.__version__)


def tile_table() -> TileTable | None:
    """The tiles to reserve from; None: nothing is reserved."""
    told = os.environ.get(TILES)
    if told is None:
        return None
    table = json.loads(told)
    return TileTable(folder=Path(table["folder"]), count=table["count"])


def events_path() -> Path | None:
    """The file that gets one JSON line a call, from every process."""
    told = os.environ.get(EVENTS)
    return None if told is None else Path(told)
