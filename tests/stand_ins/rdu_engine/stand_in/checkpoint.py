"""A checkpoint on the device: the weights of a PEF, and the state that its runs leave behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sambaflow.stand_in.contracts import Contract, ContractError
from sambaflow.stand_in.kv_cache import KvCacheRules
from sambaflow.stand_in.region import Region
from sambaflow.stand_in.traffic import TRAFFIC

from rdu_engine.stand_in.symbols import Symbol, dtype_name

FILE = "model.safetensors"
INDEX_FILE = f"{FILE}.index.json"


class Checkpoint:
    """Made by `PEF.load_checkpoint`; a PEF may have several, each with a state of its own [inf]."""

    def __init__(self, pef: Any, weights: dict[str, torch.Tensor], regions: dict[str, Region]):
        self._pef = pef
        self._weights = weights
        self._regions = regions
        self._cache = KvCacheRules()


def load_weights(pef: str, path: str, specs: Mapping[str, Symbol]) -> dict[str, torch.Tensor]:
    """Read a folder of safetensors [WHL: file names, messages] by the PEF's names.

    Tensors that the PEF does not know stay unused [WHL: message].

    Raises:
        ContractError: No folder with such files, a weight is missing, or has another shape or
            dtype.
    """
    if not path:
        raise ContractError(
            Contract.CHECKPOINT, "Empty checkpoint path given to load_checkpoint()!", "a folder"
        )
    found: dict[str, torch.Tensor] = {}
    for shard in shards_of(Path(path)):
        try:
            found |= load_file(shard)
        except Exception as error:
            raise ContractError(
                Contract.CHECKPOINT, f'Failed to load checkpoint file "{shard}"!', str(error)
            ) from error
    missing = sorted(specs.keys() - found.keys())
    if missing:
        raise ContractError(
            Contract.CHECKPOINT,
            f'Checkpoint at "{path}" was missing weight symbols: {missing}',
            f"the {len(specs)} names of get_checkpoint_spec({pef!r})",
        )
    for name, wanted in specs.items():
        tensor = found[name]
        if tuple(tensor.shape) != wanted.shape:
            raise ContractError(
                Contract.CHECKPOINT,
                f'Loading tensor "{name}": shape {tuple(tensor.shape)} does not match',
                f"{wanted.shape}",
            )
        if tensor.dtype != wanted.dtype:
            raise ContractError(
                Contract.CHECKPOINT,
                f'Loading tensor "{name}": dtype {dtype_name(tensor.dtype)} does not match',
                dtype_name(wanted.dtype),
            )
    weights = {name: found[name] for name in specs}
    TRAFFIC.transferred_weights(sum(one.numel() * one.element_size() for one in weights.values()))
    return weights


def shards_of(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those of its index, or the one [WHL; inf].

    Raises:
        ContractError: It has neither.
    """
    if (folder / INDEX_FILE).is_file():
        shards = json.loads((folder / INDEX_FILE).read_text())["weight_map"].values()
        return [folder / name for name in sorted(set(shards))]
    if not (folder / FILE).is_file():
        raise ContractError(
            Contract.CHECKPOINT, f"no {FILE} in {folder}", f"a folder with {FILE} or {INDEX_FILE}"
        )
    return [folder / FILE]
