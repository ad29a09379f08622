"""Checkpoints of GPT-2 in both layouts: transformers' own, and that of a patched model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rdu_batch.errors import InputError
from rdu_batch.sessions.checkpoint import ModelSource, find_checkpoint
from rdu_batch.sessions.plain_model import load_model, read_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

PRODUCTS = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


@pytest.fixture
def weights(tiny_checkpoint: Callable[[str], Path]) -> dict[str, Tensor]:
    """The weights of the tiny GPT-2, as transformers has them."""
    model = GPT2LMHeadModel.from_pretrained(tiny_checkpoint("gpt2"))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def load(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path]
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Saves weights as the tutorial does, loads them, and gives back what the model then holds."""

    def save_and_load(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        path = tmp_path / "checkpoint.pt"
        torch.save({name: tensor.contiguous() for name, tensor in weights.items()}, path)
        found = find_checkpoint(
            ModelSource(str(tiny_checkpoint("gpt2")), checkpoint_name=str(path))
        )
        config = read_config(found.config_path)
        return dict(load_model(replace(found), config, torch.float32).state_dict())

    return save_and_load


def turned(weights: dict[str, Tensor], *, blocks: str = "01") -> dict[str, Tensor]:
    """As a patched model saves them."""
    return {
        name: tensor.t()
        if name.endswith(PRODUCTS) and name.removeprefix("transformer.h.")[0] in blocks
        else tensor
        for name, tensor in weights.items()
    }


def test_a_checkpoint_of_a_patched_model_is_turned_back(
    weights: dict[str, Tensor], load: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    """Square weights too, whose shape tells nothing."""
    found = load(turned(weights))
    assert found.keys() == weights.keys()
    assert all(found[name].equal(tensor) for name, tensor in weights.items())


def test_a_checkpoint_of_transformers_stays_as_it_is(
    weights: dict[str, Tensor], load: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    """Nothing is turned twice."""
    found = load(weights)
    assert all(found[name].equal(tensor) for name, tensor in weights.items())


def test_a_checkpoint_of_both_layouts_is_refused(
    weights: dict[str, Tensor], load: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    """Naming one weight of each."""
    with pytest.raises(InputError, match=r"h\.1\.\S+ is transposed.*h\.0\.\S+ is not"):
        load(turned(weights, blocks="1"))
    one = "transformer.h.0.mlp.c_fc.weight"
    with pytest.raises(InputError, match="is transposed"):
        load({**weights, one: weights[one].t()})


def test_a_weight_of_no_known_shape_is_refused_by_name(
    weights: dict[str, Tensor], load: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    """By the loader, whichever layout the others have."""
    one = "transformer.h.0.attn.c_attn.weight"
    for others in (weights, turned(weights)):
        with pytest.raises(InputError, match=r"h\.0\.attn\.c_attn\.weight is \["):
            load({**others, one: torch.zeros(64, 100)})


def test_a_model_whose_products_are_square_is_told_by_its_attention(
    tmp_path: Path, load: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    """With n_inner equal to n_embd only c_attn is not square."""
    from rdu_batch.sessions.samba.layout import own_layout, transposed_products

    config = GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, n_positions=4, n_inner=8)
    weights = GPT2LMHeadModel(config).state_dict()
    found = own_layout(transposed_products(weights), config, place="here")
    assert all(found[name].equal(tensor) for name, tensor in weights.items())
