"""int8 weights: whole numbers of -127 to 127, and one fp32 scale for each output.

Promises: what stands for a weight is ``number * scale``, for every session that opens the artifact;
a scale follows from its own output's weights alone: the largest becomes 127. torch only, so that
sessions open fast. Does not: change modules; see ``int8_patches.py``.

Shapes: I inputs, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST = 127


@dataclass(frozen=True)
class Int8Weight:
    """One weight: int8 numbers [O, I] and the fp32 scale [O] of each output."""

    numbers: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weight_OI: Tensor) -> Int8Weight:
        """The nearest one to a plain weight; an output of zeros has scale 0."""
        plain = weight_OI.float()
        scale = plain.abs().amax(-1) / _LARGEST
        numbers = (plain / scale[:, None]).round().clamp(-_LARGEST, _LARGEST)
        return cls(torch.where(scale[:, None] == 0, 0.0, numbers).to(torch.int8), scale)

    def plain(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight [O, I] that it stands for."""
        return (self.numbers.float() * self.scale[:, None]).to(dtype)


def scale_name(name: str) -> str:
    """Under which name a weight's scale lies in ``weights.safetensors`` and in graphs."""
    return f"{name}_scale"
