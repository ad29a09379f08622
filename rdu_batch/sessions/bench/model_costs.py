"""What an artifact's tokens and prompts cost: the numbers of ``costs.py`` for one artifact.

A model's sizes come from its config alone: it is built on torch's meta device, without weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rdu_batch.sessions.bench.costs import (
    ModelShape,
    cache_bytes_per_position,
    prefill_flop,
    read_stored,
    weight_bytes_per_token,
)
from rdu_batch.sessions.inductor.geometry import TORCH_DTYPES, WEIGHTS_FILE
from rdu_batch.sessions.inductor.session import chunk_tokens
from rdu_batch.sessions.plain_model import read_config

if TYPE_CHECKING:
    from rdu_batch.sessions.artifact import LocalArtifact


@dataclass(frozen=True)
class ModelCosts:
    """Costs of one artifact, and of one length of prompt."""

    #: Weights that one decode reads.
    weight_bytes: int
    #: Keys and values that one decode reads for each position.
    position_bytes: int
    prefill_flop: int
    #: Tokens that the prefill computes, padding included.
    computed_tokens: int

    def bytes_per_token(self, positions: float) -> float:
        """Bytes that a decode reads which attends to so many positions."""
        return self.weight_bytes + self.position_bytes * positions


def costs_of(local: LocalArtifact, prompt_tokens: int) -> ModelCosts:
    """Costs of an artifact on this machine.

    Raises:
        ArtifactError: its weights file cannot be read.
        InputError: its config cannot be read.
    """
    artifact, chunk = local.artifact, local.artifact.prefill_chunk
    shape = shape_of(local)
    chunks = [
        chunk_tokens(min(chunk, prompt_tokens - start), chunk)
        for start in range(0, prompt_tokens, chunk)
    ]
    stored = read_stored(local.path(WEIGHTS_FILE))
    return ModelCosts(
        weight_bytes=weight_bytes_per_token(stored, artifact.layouts, shape.tables),
        position_bytes=cache_bytes_per_position(
            artifact.num_layers,
            artifact.num_kv_heads,
            artifact.head_size,
            TORCH_DTYPES[artifact.dtype].itemsize,
        ),
        prefill_flop=prefill_flop(shape, chunks),
        computed_tokens=sum(chunks),
    )


def shape_of(local: LocalArtifact) -> ModelShape:
    """Sizes of an artifact's model. Products that are no module's of their own are not counted.

    Raises:
        InputError: the config cannot be read.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.pytorch_utils import Conv1D

    config = read_config(local.folder)
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        model = model_class(config)
    head = model.get_output_embeddings()
    products = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]
    return ModelShape(
        num_layers=local.artifact.num_layers,
        num_heads=int(config.get_text_config().num_attention_heads),
        head_size=local.artifact.head_size,
        product_params=sum(module.weight.numel() for module in products),
        head_params=0 if head is None else head.weight.numel(),
        tables=frozenset(
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, nn.Embedding)
        ),
    )
