"""The name of a model's cache, whatever release of transformers is installed."""

from __future__ import annotations

import warnings
from typing import Any

from rdu_batch.sessions.cache_argument import cache_argument


class _Older:
    def forward(self, input_ids: Any, past_key_values: Any = None) -> None:
        """As models of transformers before 5.24."""


class _Newer:
    def forward(self, input_ids: Any, cache: Any = None) -> None:
        """As models since then."""


def test_either_name_is_found() -> None:
    """By the model's own signature."""
    assert cache_argument(_Older()) == "past_key_values"
    assert cache_argument(_Newer()) == "cache"


def test_the_installed_release_takes_its_name_without_a_warning() -> None:
    """A name that it is about to drop would come with one."""
    import torch
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("error")
        cache = DynamicCache(config=model.config)
        model(input_ids=torch.tensor([[1]]), use_cache=True, **{cache_argument(model): cache})
    assert cache.get_seq_length() == 1
