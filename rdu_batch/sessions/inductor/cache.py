"""A transformers cache over tensors that are passed in and updated in place.

Promises: one tensor pair a layer, never one big tensor, because functionalization would copy that
whole at every step. Does not: allocate, grow or forget; the session owns the tensors.

Shapes: C tokens of this call, H key/value heads, L positions the cache holds, D head size,
N positions attended to (1 <= N < L).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import cache_utils

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


#: transformers' own base class, which has no types.
_CacheLayer: Any = cache_utils.CacheLayerMixin


class InPlaceLayer(_CacheLayer):  # type: ignore[misc]
    """Keys and values of one layer, written at given positions, read up to a given length."""

    is_compileable = True
    is_sliding = False

    def __init__(
        self, keys_1HLD: Tensor, values_1HLD: Tensor, positions_C: Tensor, num_positions: int
    ) -> None:
        super().__init__()
        self.keys, self.values = keys_1HLD, values_1HLD
        self.positions_C = positions_C
        self.num_positions = num_positions
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the tensors are there from the start."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write [1, H, C, D] at this call's positions; give back the first N positions."""
        self.keys.index_copy_(2, self.positions_C, key_states.to(self.keys.dtype))
        self.values.index_copy_(2, self.positions_C, value_states.to(self.values.dtype))
        return (
            self.keys.narrow(2, 0, self.num_positions),
            self.values.narrow(2, 0, self.num_positions),
        )

    def get_mask_sizes(self, _query_length: int) -> tuple[int, int]:
        """Length and offset of what is attended to."""
        return self.num_positions, 0

    def get_seq_length(self) -> int:
        """Not counted here: positions come in as an input."""
        return 0

    def get_max_length(self) -> int:
        """Positions the tensors hold."""
        return int(self.keys.shape[2])


def in_place_cache(
    keys: Sequence[Tensor], values: Sequence[Tensor], positions_C: Tensor, num_positions: int
) -> cache_utils.Cache:
    """A transformers ``Cache`` over these tensors, for one forward call."""
    return cache_utils.Cache(
        layers=[
            InPlaceLayer(keys_1HLD, values_1HLD, positions_C, num_positions)
            for keys_1HLD, values_1HLD in zip(keys, values, strict=True)
        ]
    )
