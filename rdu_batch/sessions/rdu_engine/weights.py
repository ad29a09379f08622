"""The weights of an artifact as ``load_checkpoint`` reads them: a folder of safetensors.

A PEF says which weights it wants, by name, shape and type. The artifact has the checkpoint's own:
with other names, the products of a GPT-2 the other way round, tied ones once.

Promises: made once a node, in its private cache, from the artifact alone; every weight that the PEF
wants is in it, and no other. Does not: read pickles, or know the device.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import torch

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.artifact_cache import keep_in_cache
from rdu_batch.sessions.artifact_store import file_entry
from rdu_batch.sessions.inductor.geometry import WEIGHTS_FILE
from rdu_batch.sessions.inductor.weights import bound_tensors, map_tensors, write_tensors
from rdu_batch.sessions.samba.layout import transposed_products

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from rdu_batch.sessions.artifact import LocalArtifact

#: Names that the runtime looks for in the folder. With the index it need not guess.
CHECKPOINT_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"
#: Size and sha256 of the first, so that a damaged one is made again.
NOTE_FILE: Final = "made.json"
#: Counts as part of the folder's name: raise it when what is written changes.
_RECIPE_VERSION: Final = 1
#: The runtime's names of the types that weights may have.
DTYPES: Final = {
    "TENSOR_DTYPE_FP32": torch.float32,
    "TENSOR_DTYPE_BF16": torch.bfloat16,
}


def checkpoint_folder(local: LocalArtifact, spec: Mapping[str, Any]) -> Path:
    """A folder with the artifact's weights as a PEF wants them.

    Args:
        local: the artifact.
        spec: as ``get_checkpoint_spec`` gave it: name to ``shape`` and ``dtype``.

    Raises:
        ArtifactError: the PEF wants a weight that the artifact does not have, or has in another
            shape or type; or the cache cannot be used. Ends the job (exit 8).
    """
    tensors = _wanted_tensors(local, spec)
    described = json.dumps([_RECIPE_VERSION, local.artifact.digest, spec], sort_keys=True)
    name = f"rdu_engine-{hashlib.sha256(described.encode()).hexdigest()}"
    return keep_in_cache(name, is_whole=_is_whole, fill=lambda folder: _fill(folder, tensors))


def _wanted_tensors(local: LocalArtifact, spec: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights by the PEF's names; mapped, not read."""
    url = local.artifact.url
    bound = bound_tensors(map_tensors(local.path(WEIGHTS_FILE)), local.artifact.layouts)
    by_name = transposed_products(bound)
    by_name |= {name.replace(".", "__"): tensor for name, tensor in by_name.items()}
    missing = sorted(spec.keys() - by_name.keys())
    if missing:
        raise ArtifactError(
            f"{url}: its PEF wants {len(missing)} weights that the artifact does not have, such "
            f"as {missing[0]}; it has {next(iter(by_name), 'none')} and others; compile the model "
            "again"
        )
    wanted = {}
    for name, one in spec.items():
        # Scalars that a run is given have no type here.
        tensor, shape, said = by_name[name], list(one["shape"]), one.get("dtype")
        dtype = DTYPES.get(said)
        if list(tensor.shape) != shape or dtype is None:
            raise ArtifactError(
                f"{url}: its PEF wants {name} as {said} {shape}; the artifact has "
                f"{tensor.dtype} {list(tensor.shape)}, and types that weights may have are "
                f"{', '.join(DTYPES)}; compile the model again"
            )
        wanted[name] = tensor.to(dtype)
    return wanted


def _fill(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    path = folder / CHECKPOINT_FILE
    write_tensors(path, tensors)
    total_bytes = sum(one.numel() * one.element_size() for one in tensors.values())
    index = {
        "metadata": {"total_size": total_bytes},
        "weight_map": dict.fromkeys(sorted(tensors), CHECKPOINT_FILE),
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n")
    (folder / NOTE_FILE).write_text(json.dumps(asdict(file_entry(path))) + "\n")


def _is_whole(folder: Path) -> bool:
    try:
        note = json.loads((folder / NOTE_FILE).read_bytes())
        return (folder / INDEX_FILE).is_file() and note == asdict(
            file_entry(folder / CHECKPOINT_FILE)
        )
    except (OSError, ValueError):
        return False
