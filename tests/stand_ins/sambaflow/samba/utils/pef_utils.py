"""`sambaflow.samba.utils.pef_utils`: the metadata of a PEF."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from torch import nn

from sambaflow.stand_in.pef import read_pef


@dataclass(frozen=True)
class PefInfoStruct:
    """A default for one key of a PEF's metadata [MZ: pef_meta.py]."""

    default: Any


def get_pefmeta(args: argparse.Namespace, model: nn.Module) -> dict[str, Any]:
    """The metadata for `session.compile(pef_metadata=)` [T: logreg.py]."""
    return {"command": vars(args).get("command"), "model": type(model).__name__}


def get_pef_info(pef: str, wanted: dict[str, PefInfoStruct]) -> dict[str, Any]:
    """The values of some keys of a PEF's metadata [MZ: pef_meta.py].

    Raises:
        ValueError: A key is absent [MZ].
    """
    metadata = read_pef(pef)["metadata"]
    absent = sorted(wanted.keys() - metadata.keys())
    if absent:
        raise ValueError(f"{pef} has no metadata {', '.join(absent)}")
    return {key: metadata[key] for key in wanted}
