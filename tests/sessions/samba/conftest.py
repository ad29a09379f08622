"""The tiny GPT-2 with the exact GELU, by transformers: what the RDU's model must say, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def exact_gpt2(tiny_checkpoint: Callable[[str], Path]) -> Any:
    """In fp32, no patch of this program in it."""
    from transformers import GPT2LMHeadModel

    place = tiny_checkpoint("gpt2")
    return GPT2LMHeadModel.from_pretrained(place, activation_function="gelu").eval()
