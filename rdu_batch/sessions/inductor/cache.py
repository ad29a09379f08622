"""A transformers cache over tensors that are passed in and updated in place.

Promises: one tensor pair a layer, never one big tensor, because functionalization would copy that
whole at every step; layers with a sliding window keep all positions too, the window is in their
mask. Does not: allocate, grow or forget; the session owns the tensors.

Shapes: C tokens of this call, H key/value heads, L positions the cache holds, D head size,
N positions attended to (1 <= N < L).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import cache_utils

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


#: transformers' own base classes, which have no types.
_CacheLayer: Any = cache_utils.CacheLayerMixin
_Cache: Any = cache_utils.Cache


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
        self.num_updates = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the tensors are there from the start."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write [1, H, C, D] at this call's positions; give back the first N positions.

        Raises:
            ArtifactError: the model's heads are not those that its config told the cache.
        """
        for new, kept in ((key_states, self.keys), (value_states, self.values)):
            if (new.shape[1], new.shape[3]) != (kept.shape[1], kept.shape[3]):
                raise ArtifactError(
                    f"a layer keeps {new.shape[1]} heads of {new.shape[3]} numbers, where its "
                    f"config says {kept.shape[1]} of {kept.shape[3]} for keys and values alike"
                )
        self.num_updates += 1
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
        """Tokens before this call's, N - C: a symbol during export, so nothing can branch on it."""
        return self.num_positions - self.positions_C.shape[0]

    def get_max_length(self) -> int:
        """Positions the tensors hold."""
        return int(self.keys.shape[2])


class InPlaceCache(_Cache):  # type: ignore[misc]
    """The layers of one forward call."""

    def __init__(self, layers: list[InPlaceLayer], positions_C: Tensor) -> None:
        super().__init__(layers=layers)
        self.positions_C = positions_C

    def get_query_offset(self, layer_idx: int = 0) -> Tensor:
        """Position of this call's first token; masks are made from it inside the graph."""
        return self.positions_C[0]

    def check_used(self) -> None:
        """Make sure that a forward call wrote each layer once; what it kept elsewhere is lost.

        Raises:
            ArtifactError: the model has layers that remember in another way, or share what they do.
        """
        for index, layer in enumerate(self.layers):
            if layer.num_updates != 1:
                raise ArtifactError(
                    f"its layer {index} keeps keys and values {layer.num_updates} times a token, "
                    "wanted once; it remembers in some other way"
                )


def in_place_cache(
    keys: Sequence[Tensor], values: Sequence[Tensor], positions_C: Tensor, num_positions: int
) -> InPlaceCache:
    """A transformers ``Cache`` over these tensors, for one forward call."""
    layers = [
        InPlaceLayer(keys_1HLD, values_1HLD, positions_C, num_positions)
        for keys_1HLD, values_1HLD in zip(keys, values, strict=True)
    ]
    return InPlaceCache(layers, positions_C)
