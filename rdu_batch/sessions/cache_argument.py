"""What a transformers model calls its key/value cache when it is called.

transformers 5.24 renamed ``past_key_values`` to ``cache``, and takes the old name until 5.40; this
project runs with releases on both sides of it.
"""

from __future__ import annotations

import inspect
from typing import Any


def cache_argument(model: Any) -> str:
    """The name of the argument of ``model``'s ``forward`` that takes a key/value cache."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
