"""Names of the graphs and tensors of a cached PEF, as SambaNova's Model Zoo has them. No torch.

Promises: whoever compiles such a PEF and whoever runs it, by SambaFlow or by ``rdu_engine``, call
the same things the same. Does not: know shapes or types.

Lengths: S static length of a prefill graph, M positions of the cache. Batch size is 1.

    graph                    takes                                              gives
    model_nocache_{S}_fwd    ids (1, S), last_token_index (1, 1)                logits, cache
    model_cache_{M}_fwd      ids (1, 1), attention_mask (1, M),                 logits, cache
                             last_token_index (1, 1), cache

Ids, index and mask are int32; logits are float32 (1, 1, V), those of the last token alone. The
names of the cache's regions are this program's: Model Zoo's are not public.
"""

from __future__ import annotations

from typing import Final

#: Region of the logits, written by every graph.
LOGITS: Final = "logits"
#: Position of the row's last token: the one that is scored, and in decode the one that is fed.
INDEX: Final = "last_token_index"
#: 1 for each position up to the last token, then 0.
MASK: Final = "attention_mask"


def prefill_graph(static_length: int) -> str:
    """Name of the prefill graph of a static length."""
    return f"model_nocache_{static_length}_fwd"


def decode_graph(max_seq_length: int) -> str:
    """Name of the decode graph over a cache of this many positions."""
    return f"model_cache_{max_seq_length}_fwd"


def prefill_ids(static_length: int) -> str:
    """Name of a prefill graph's tokens."""
    return f"input_ids_consume_cache_False_static_seq_length_{static_length}"


def decode_ids(max_seq_length: int) -> str:
    """Name of the decode graph's token."""
    return f"input_ids_consume_cache_True_max_seq_length_{max_seq_length}"


def cache_region(layer: int, part: str) -> str:
    """Region of one layer's ``key`` or ``value``, shared by all graphs."""
    return f"past_{part}_{layer}"


def metadata_of(max_seq_length: int, lengths: tuple[int, ...]) -> dict[str, object]:
    """What Model Zoo writes into such a PEF, for whoever runs it."""
    return {"batch_size": 1, "max_pef_length": max_seq_length, "lengths": list(lengths)}
