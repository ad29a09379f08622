"""What a run of a cached PEF's graphs is given: named int32 tensors, whichever runtime runs it.

Promises: a prompt is padded on the right; tokens are never cropped. Does not: know the cache, which
stays on the device; see ``symbols.py`` for the names.

Shapes: S tokens of the row so far; the last one is scored. Batch size is 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rdu_batch.sessions.samba import symbols
from rdu_batch.sessions.samba.graph_inputs import PAD_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def prefill_inputs(
    ids_S: Sequence[int], prefill_lengths: Sequence[int]
) -> tuple[str, dict[str, Tensor]]:
    """Graph and inputs of a prompt: the shortest of the ascending lengths that holds it.

    Raises:
        ValueError: no tokens, or more than the longest holds.
    """
    length = next((length for length in prefill_lengths if length >= len(ids_S)), None)
    if length is None or not ids_S:
        raise ValueError(f"{len(ids_S)} tokens for prefill graphs of {list(prefill_lengths)}")
    input_ids_1S = torch.full((1, length), PAD_ID, dtype=torch.int32)
    input_ids_1S[0, : len(ids_S)] = torch.tensor(ids_S, dtype=torch.int32)
    return symbols.prefill_graph(length), {
        symbols.prefill_ids(length): input_ids_1S,
        symbols.INDEX: _index_of(ids_S),
    }


def decode_inputs(ids_S: Sequence[int], max_seq_length: int) -> tuple[str, dict[str, Tensor]]:
    """Graph and inputs of a row's last token, over the cache of the others.

    Raises:
        ValueError: more tokens than the cache has positions.
    """
    if not 1 <= len(ids_S) <= max_seq_length:
        raise ValueError(f"{len(ids_S)} tokens for a cache of {max_seq_length} positions")
    mask_1M = torch.zeros(1, max_seq_length, dtype=torch.int32)
    mask_1M[:, : len(ids_S)] = 1
    return symbols.decode_graph(max_seq_length), {
        symbols.decode_ids(max_seq_length): torch.tensor([[ids_S[-1]]], dtype=torch.int32),
        symbols.MASK: mask_1M,
        symbols.INDEX: _index_of(ids_S),
    }


def _index_of(ids_S: Sequence[int]) -> Tensor:
    return torch.tensor([[len(ids_S) - 1]], dtype=torch.int32)
