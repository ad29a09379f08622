"""The model as SambaFlow wants it, to compile and to run: built, patched, converted, loaded.

Promises: compile and run prepare the model by the same calls in the same order, as a graph is only
accepted if it is traced anew; no weight is ever a random number: they are zeros until the
checkpoint is loaded, and every one of them must be in it. Does not: trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rdu_batch.sessions.inductor.geometry import TORCH_DTYPES, WEIGHTS_FILE
from rdu_batch.sessions.inductor.weights import bound_tensors, map_tensors
from rdu_batch.sessions.plain_model import build_model, read_config
from rdu_batch.sessions.samba.layout import transposed_products

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rdu_batch.sessions.samba.flow import SambaFlow


def prepare_model(
    flow: SambaFlow, folder: Path, dtype: str, *, patch: Callable[[Any], object], place: str
) -> Any:
    """The artifact's model without its weights: patched, then converted in place.

    Args:
        flow: SambaFlow.
        folder: where config and weights of the artifact lie; of these only names and shapes count.
        dtype: ``bf16`` or ``fp32``, of the weights on the host.
        patch: changes transformers' model in place to what the graphs are traced from.
        place: the artifact, for messages.

    Raises:
        InputError: the weights do not fit the config.
        ArtifactError: the weights cannot be read, or there is no patch for this model.
    """
    zeros = {
        # Memory of its own: the file's pages cannot be written to.
        name: torch.zeros(tensor.shape, dtype=TORCH_DTYPES[dtype])
        for name, tensor in map_tensors(folder / WEIGHTS_FILE).items()
    }
    model = build_model(read_config(folder), zeros, TORCH_DTYPES[dtype], place=place)
    patch(model)
    flow.samba.from_torch_model_(model)
    return model


def load_weights(model: Any, folder: Path, layouts: Mapping[str, str]) -> None:
    """Copy the artifact's weights into a prepared model, on the host alone.

    Args:
        model: as ``prepare_model`` gave it.
        folder: where ``weights.safetensors`` lies, under the checkpoint's names and in its layout.
        layouts: ``Artifact.layouts``: which names share one tensor.

    Raises:
        RuntimeError: a weight is missing, unexpected or misshapen; torch lists them.
    """
    tensors = bound_tensors(map_tensors(folder / WEIGHTS_FILE), layouts)
    model.load_state_dict(transposed_products(tensors), strict=True)


def load_checkpoint(flow: SambaFlow, model: Any, folder: Path, layouts: Mapping[str, str]) -> None:
    """``load_weights`` into a model that may be traced already, and bring them to the device."""
    load_weights(model, folder, layouts)
    flow.samba.session.to_rdu(model)
