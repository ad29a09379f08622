"""What the graph takes: named tensors of fixed shape and type, the same to trace and to run.

Shapes: L positions of the graph (``max_seq_length``), S tokens so far. Batch size is 1.

    input_ids            int32    (1, L)      the tokens, then PAD_ID
    attention_mask       float32  (1, 1, L)   1 for a token, 0 behind them
    input_position_ids   int16    (1, L)      0 to L - 1, always

They are no. 0, 2 and 4 of the positional arguments of the patched forward; the others are None.
Promises: tokens are never cropped. Does not: know the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Fills the positions behind the tokens; no position before them looks there.
PAD_ID: Final = 0
#: A position id is an int16.
MOST_POSITIONS: Final = 1 << 15


def graph_inputs(samba: Any, token_ids: Sequence[int], length: int) -> tuple[Any, ...]:
    """The eight arguments for a row's tokens, 1 <= S <= L.

    Args:
        samba: module ``sambaflow.samba``.
        token_ids: prompt and generated tokens. To trace, any will do: only names, shapes and types
            count then.
        length: L.

    Raises:
        ValueError: no tokens, or more than the graph has positions.
    """
    num_tokens = len(token_ids)
    if not 1 <= num_tokens <= length <= MOST_POSITIONS:
        raise ValueError(
            f"{num_tokens} tokens for a graph of {length} positions; wanted 1 to {length}, and a "
            f"graph of at most {MOST_POSITIONS}"
        )
    input_ids_1L = torch.full((1, length), PAD_ID, dtype=torch.int32)
    input_ids_1L[0, :num_tokens] = torch.tensor(token_ids, dtype=torch.int32)
    mask_1L = torch.zeros(1, length)
    mask_1L[:, :num_tokens] = 1.0
    position_ids_1L = torch.arange(length).short().unsqueeze(0).expand(1, length)
    return (
        samba.from_torch_tensor(input_ids_1L, name="input_ids"),
        None,
        samba.from_torch_tensor(mask_1L[:, None, :], name="attention_mask"),
        None,
        samba.from_torch_tensor(position_ids_1L, name="input_position_ids"),
        None,
        None,
        None,
    )
