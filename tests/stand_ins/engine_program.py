"""A program that runs the PEF of `multigraph_program` by `rdu_engine`: the right one of its tests.

Written from the signatures of the wheel and the modelzoo's calls. It names graphs and symbols as
the compiled program did; the cache's symbols need no names here, as they stay on the device.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rdu_engine
import torch
from safetensors.torch import save_file

PREFILL_LENGTH = 6
MAX_LENGTH = 10
PREFILL = f"model_nocache_{PREFILL_LENGTH}_fwd"
DECODE = f"model_cache_{MAX_LENGTH}_fwd"
PREFILL_IDS = f"input_ids_consume_cache_False_static_seq_length_{PREFILL_LENGTH}"
DECODE_IDS = f"input_ids_consume_cache_True_max_seq_length_{MAX_LENGTH}"
INDEX, MASK, LOGITS = "last_token_index", "attention_mask", "logits"


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A plain model's weights by the symbols of a converted one."""
    return {name.replace(".", "__"): one.detach().clone() for name, one in model.named_parameters()}


def save_checkpoint(folder: Path, weights: dict[str, torch.Tensor]) -> str:
    """A folder that `load_checkpoint` reads."""
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return str(folder)


class Running:
    """A PEF with one checkpoint."""

    def __init__(self, pef: str, checkpoint: str) -> None:
        self.pef = rdu_engine.PEF(pef)
        self.checkpoint = self.pef.load_checkpoint(checkpoint)

    def run(self, schedule: str, inputs: dict[str, Any], **settings: Any) -> Any:
        """One run."""
        told = {"reuse_outputs": True, **settings}
        return self.pef.run(self.checkpoint, inputs, schedule, **told)

    def logits(self, schedule: str, inputs: dict[str, Any]) -> torch.Tensor:
        """One run, and a copy of its logits."""
        return self.run(schedule, inputs).get_tensor(LOGITS)[0, 0].clone()

    def prefill(self, tokens: Sequence[int]) -> torch.Tensor:
        """Fill the cache with a prompt; the logits after it."""
        return self.logits(PREFILL, prefill_inputs(tokens))

    def decode(self, token: int, index: int, **changes: Any) -> torch.Tensor:
        """One more token at an index; the logits after it."""
        return self.logits(DECODE, {**decode_inputs(token, index), **changes})


def prefill_inputs(tokens: Sequence[int]) -> dict[str, Any]:
    """A prompt, right-padded."""
    ids_1S = torch.zeros(1, PREFILL_LENGTH, dtype=torch.int32)
    ids_1S[0, : len(tokens)] = torch.tensor(tokens)
    return {PREFILL_IDS: ids_1S, INDEX: torch.tensor([[len(tokens) - 1]], dtype=torch.int32)}


def decode_inputs(token: int, index: int) -> dict[str, Any]:
    """A token at its index."""
    return {
        DECODE_IDS: torch.tensor([[token]], dtype=torch.int32),
        MASK: (torch.arange(MAX_LENGTH) <= index).int().unsqueeze(0),
        INDEX: torch.tensor([[index]], dtype=torch.int32),
    }
