"""The weights of an artifact: one safetensors file, mapped read-only and shared by all sessions.

Promises: a mapped tensor costs no memory of its own; two sessions of a node read the same pages of
the page cache, and nothing can write to them. Does not: change names or types; see ``compile.py``.
"""

from __future__ import annotations

import json
import math
import mmap
import warnings
from typing import TYPE_CHECKING, Final

import torch

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.inductor.int8 import Int8Weight, scale_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

#: Vector loads that straddle a cache line are slow: the first tensor starts on one.
_ALIGNMENT_BYTES = 64
#: Weights, and what else graphs hold: masks and tables of numbers.
_DTYPE_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _DTYPE_NAMES.items()}
#: How a tensor lies. It is another one's, by name;
ALIAS: Final = "alias:"
#: or one of these; both with a comma between if it was transposed and then made int8.
INT8: Final = "int8"
TRANSPOSED: Final = "transposed"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file tensor by tensor, aligned for vector loads.

    Like the format's own writer, but it pads the header to a cache line and puts tensors that would
    break the alignment of the next one last.
    """

    def num_bytes(name: str) -> int:
        return tensors[name].numel() * tensors[name].element_size()

    def order(name: str) -> tuple[bool, int, str]:
        # Among the last ones, large numbers come first: each then lies on a multiple of its size.
        return num_bytes(name) % _ALIGNMENT_BYTES != 0, -tensors[name].element_size(), name

    names = sorted(tensors, key=order)
    entries, offset = {}, 0
    for name in names:
        tensor = tensors[name]
        end = offset + num_bytes(name)
        entries[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % _ALIGNMENT_BYTES)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            plain = tensors[name].detach().contiguous().reshape(-1)
            stream.write(plain.view(torch.uint8).numpy().data)


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Map a safetensors file; the tensors stay valid as long as any of them lives.

    The mapping is shared and read-only: a stray write ends the process, never another's weights.

    Raises:
        ArtifactError: not a safetensors file, or a type that no session computes with.
    """
    with path.open("rb") as stream:
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        start = 8 + int.from_bytes(mapping[:8], "little")
        entries = json.loads(mapping[8:start])
        entries.pop("__metadata__", None)
        with warnings.catch_warnings():
            # torch cannot mark a tensor read-only and says so; the mapping itself refuses writes.
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            return {
                name: torch.frombuffer(
                    mapping,
                    dtype=_DTYPES[entry["dtype"]],
                    count=math.prod(entry["shape"]),
                    offset=start + entry["data_offsets"][0],
                ).view(entry["shape"])
                for name, entry in entries.items()
            }
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: not a safetensors file this program reads ({error!r}); compile again"
        ) from error


def original_tensors(
    tensors: Mapping[str, Tensor],
    layouts: Mapping[str, str],
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """The checkpoint's own tensors: undo each noted layout, copying nothing but int8 weights.

    Args:
        tensors: as mapped from ``weights.safetensors``.
        layouts: ``Artifact.layouts``.
        dtype: of the weights that int8 numbers stand for.

    Raises:
        ArtifactError: a layout that this program does not know.
    """
    original = dict(tensors)
    for name, layout in layouts.items():
        if layout.startswith(ALIAS):
            continue
        steps = layout.split(",")
        if not {INT8, TRANSPOSED}.issuperset(steps):
            raise ArtifactError(f"{name}: unknown layout {layout!r}; compile the model again")
        if INT8 in steps:
            scale = original.pop(scale_name(name))
            original[name] = Int8Weight(tensors[name], scale).plain(dtype)
        if TRANSPOSED in steps:
            original[name] = original[name].t()
    return original


def bound_tensors(tensors: Mapping[str, Tensor], layouts: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors as graphs want them: stored layout kept, tied names resolved, with their scales."""
    bound = dict(tensors)
    for name, layout in layouts.items():
        if layout.startswith(ALIAS):
            same = layout.removeprefix(ALIAS)
            bound[name] = tensors[same]
            if scale_name(same) in tensors:
                bound[scale_name(name)] = tensors[scale_name(same)]
    return bound


def int8_weights(
    tensors: Mapping[str, Tensor], layouts: Mapping[str, str]
) -> dict[str, Int8Weight]:
    """The int8 weights by name, tied names too, outputs first whatever the checkpoint's layout."""
    bound = bound_tensors(tensors, layouts)
    return {
        name: Int8Weight(bound[name], bound[scale_name(name)])
        for name, layout in layouts.items()
        if INT8 in layouts.get(layout.removeprefix(ALIAS), layout).split(",")
    }
