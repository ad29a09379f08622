"""The model families that the inductor kind is tested with, and what is said about any other.

Promises: the list is that of ``tests/sessions/compiled/test_model_families.py``, which fails if one
of these was not run. Does not: decide anything; a model of another family is compiled like these,
through transformers' own code, and refused only where that cannot be exported or computes something
else.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

from rdu_batch.errors import ArtifactError

#: How much of an exporter's message is passed on.
_NUM_CHARACTERS = 300
#: ``model_type`` of each.
FAMILIES: Final = (
    "cohere2",
    "exaone4",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "glm4",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "granite",
    "llama",
    "ministral3",
    "mistral",
    "olmo2",
    "olmo3",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
    "stablelm",
    "starcoder2",
)


def cannot_compile(model_family: str, reason: str) -> ArtifactError:
    """The error for a model that the inductor kind cannot compile; ends the command (exit 8).

    Args:
        model_family: the config's ``model_type``.
        reason: one sentence about the model, without a full stop.
    """
    return ArtifactError(
        f"{model_family}: the inductor kind cannot compile this model: {reason}; families that are "
        f"known to work: {', '.join(FAMILIES)}; nothing was written, use --kind eager for this one"
    )


def reason_of(error: BaseException) -> str:
    """Why a model could not be traced, in one line: its first line, and where in the model's code.

    Tracing raises all sorts; what follows the first line are lists of symbols and stacks.
    """
    said = str(error).strip().partition("\n")[0]
    if isinstance(error, ArtifactError):
        return said
    frames = traceback.extract_tb(error.__traceback__)
    modelling = [frame for frame in frames if "/models/" in frame.filename]
    place = ""
    if modelling:
        place = f" ({Path(modelling[-1].filename).name}, line {modelling[-1].lineno})"
    return f"{type(error).__name__}: {said[:_NUM_CHARACTERS]}{place}"
