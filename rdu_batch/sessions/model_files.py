"""What an artifact holds of a checkpoint: tokenizer, config and weights, written to a folder.

Promises: each weight stands under the checkpoint's own name, once, however many names it has; how
it lies is noted. Does not: compile; see ``compile.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rdu_batch.sessions.inductor.geometry import TORCH_DTYPES, WEIGHTS_FILE
from rdu_batch.sessions.inductor.int8 import Int8Weight, scale_name
from rdu_batch.sessions.inductor.weights import ALIAS, INT8, TRANSPOSED, write_tensors
from rdu_batch.sessions.plain_model import load_model, save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rdu_batch.sessions.artifact import Artifact
    from rdu_batch.sessions.checkpoint import Checkpoint


def write_model(
    folder: Path, checkpoint: Checkpoint, config: Any, plan: Artifact
) -> tuple[dict[str, str], Any]:
    """Write config, tokenizer and weights to ``folder``.

    Gives back ``Artifact.layouts``, and the plain model: in fp32 where weights become int8, so that
    they are rounded once, otherwise in the artifact's type.

    Raises:
        InputError: the checkpoint cannot be read, or does not fit its config.
    """
    dtype = TORCH_DTYPES[plan.dtype]
    save_tokenizer(checkpoint, folder)
    model = load_model(checkpoint, config, torch.float32 if plan.weights == "int8" else dtype)
    model.config.dtype = dtype
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    layouts = layouts_of(model, plan)
    write_weights(folder, model, layouts, dtype)
    return layouts, model


def write_weights(folder: Path, model: Any, layouts: Mapping[str, str], dtype: torch.dtype) -> None:
    """Write a plain model's weights to ``folder``.

    Args:
        folder: the artifact's.
        model: with its weights in ``dtype``, or in fp32 where they become int8.
        layouts: as ``layouts_of`` gives them.
        dtype: of the weights that do not become int8.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        layout = layouts.get(name, "")
        if layout.startswith(ALIAS):
            continue
        stored = tensor.t() if TRANSPOSED in layout else tensor
        if INT8 in layout:
            int8 = Int8Weight.of(stored)
            tensors[name], tensors[scale_name(name)] = int8.numbers, int8.scale
        else:
            tensors[name] = stored.to(dtype) if stored.is_floating_point() else stored
    write_tensors(folder / WEIGHTS_FILE, tensors)


def layouts_of(model: Any, plan: Artifact) -> dict[str, str]:
    """``Artifact.layouts``: how each tensor that does not lie as in the checkpoint will."""
    from rdu_batch.sessions.inductor.int8_patches import int8_names
    from rdu_batch.sessions.inductor.patches import transposed_weights

    transposed = transposed_weights(model) if plan.kind == "inductor" else frozenset()
    int8 = int8_names(model) if plan.weights == "int8" else frozenset()
    layouts: dict[str, str] = {}
    #: By place, size and layout: tensors of different layouts are not one.
    first_name: dict[tuple[int, int, str], str] = {}
    for name, tensor in model.state_dict().items():
        steps = [step for step, names in ((INT8, int8), (TRANSPOSED, transposed)) if name in names]
        layout = ",".join(steps)
        same = first_name.setdefault((tensor.data_ptr(), tensor.numel(), layout), name)
        if same != name:
            layouts[name] = ALIAS + same
        elif layout:
            layouts[name] = layout
    return layouts
