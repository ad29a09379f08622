"""What a token and a prompt cost: bytes read, operations executed. Pure, no torch in here.

Promises: bytes are those that lie in the artifact, whatever type they have; what is executed for
nothing (padding) counts as executed, what is read for nothing does not count as read.
Does not: count activations, norms, rotary embeddings or anything else that grows with the hidden
size alone: some thousandths of the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a weights file, as its header says."""

    num_bytes: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model that decide what a call of it costs."""

    num_layers: int
    #: Query heads; keys and values may have fewer.
    num_heads: int
    head_size: int
    #: Weights of all matrix products of a token, except the output head's.
    product_params: int
    #: Weights of the output head: vocabulary times hidden size.
    head_params: int
    #: Names of weights of which a token looks up one row.
    tables: frozenset[str]


def read_stored(path: Path) -> dict[str, StoredTensor]:
    """What the header of a safetensors file says.

    Raises:
        ArtifactError: it is none.
    """
    try:
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return {
            name: StoredTensor(
                num_bytes=entry["data_offsets"][1] - entry["data_offsets"][0],
                shape=tuple(entry["shape"]),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: not a safetensors file ({error!r}); compile the model again"
        ) from error


def weight_bytes_per_token(
    stored: Mapping[str, StoredTensor], layouts: Mapping[str, str], tables: Collection[str]
) -> int:
    """Bytes of weights that one decode reads: each tensor once, of a looked-up table one row.

    A table that the output head shares is read whole: once for both.

    Args:
        stored: the weights file.
        layouts: ``Artifact.layouts``; an alias says that two weights are one tensor.
        tables: ``ModelShape.tables``.
    """
    prefix = "alias:"
    shared = {one.removeprefix(prefix) for one in layouts.values() if one.startswith(prefix)}
    total = 0
    for name, tensor in stored.items():
        looked_up = name in tables and name not in shared
        total += tensor.num_bytes // tensor.shape[0] if looked_up else tensor.num_bytes
    return total


def cache_bytes_per_position(
    num_layers: int, num_kv_heads: int, head_size: int, element_bytes: int
) -> int:
    """Bytes of keys and values that a decode reads for each position it attends to.

    Counts every position up to the token's own; a layer with a sliding window reads fewer.
    """
    return 2 * num_layers * num_kv_heads * head_size * element_bytes


def prefill_flop(shape: ModelShape, chunks: Sequence[int]) -> int:
    """Floating-point operations that a prefill executes, one multiply-add being two.

    Every token of every chunk, padding too, against all weights but the head's; the head for one
    token (a session that computes it for each chunk does more than counted here); attention of a
    whole chunk over all positions up to the chunk's end, masked ones too, because that is how it
    is computed.

    Args:
        shape: the model's.
        chunks: tokens that each chunk is computed with, padding included, in order.
    """
    total, end = 2 * shape.head_params, 0
    for num_tokens in chunks:
        end += num_tokens
        products = 2 * shape.product_params * num_tokens
        attention = 4 * num_tokens * end * shape.num_heads * shape.head_size * shape.num_layers
        total += products + attention
    return total
