"""Rotary embeddings whose frequencies change with the length, made constant.

Promises: a graph's frequencies are constants saved beside it, and are those of plain transformers
at every position the graph can be asked for. Does not: choose between two sets at run time. A
model that would need both within its positions is refused, with the length up to which it needs
one.
"""

from __future__ import annotations

from typing import Any

from rdu_batch.errors import ArtifactError

_STATIC = "default"


def rotary_limit(config: Any) -> int | None:
    """Positions up to which a model's rotary frequencies are constant; None if they always are.

    ``longrope`` (Phi-3) takes other frequencies, for all positions, once a row is longer than what
    the model was first trained with; ``dynamic`` does so behind the model's last position.

    Args:
        config: of transformers.
    """
    config = config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or {}
    # One set for the model, or one for each kind of layer.
    by_layer = [value for value in parameters.values() if isinstance(value, dict)]
    limits = []
    for one in by_layer or [parameters]:
        kind = str(one.get("rope_type", _STATIC))
        if kind == "longrope":
            limits.append(int(one["original_max_position_embeddings"]))
        elif "dynamic" in kind:
            limits.append(int(config.max_position_embeddings))
    return min(limits, default=None)


def freeze_rotary(model: Any, num_positions: int) -> None:
    """Take the update of frequencies out of a model that is used up to ``num_positions``.

    Proof: transformers wraps these modules in a function that, by ``rope_type``, looks at the
    highest position and writes the frequencies for it into a buffer; up to ``rotary_limit`` those
    are the ones that the buffer was made with. Named ``default``, the module does everything else.
    Left in, the graph would write to its constants, which are mapped read-only.

    Raises:
        ArtifactError: the frequencies change within these positions.
    """
    limit = rotary_limit(model.config)
    if limit is None:
        return
    if num_positions > limit:
        raise ArtifactError(
            f"its rotary frequencies change behind position {limit}, and {num_positions} were "
            f"asked for; --max_seq_length {limit} or less works"
        )
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, str):
            module.rope_type = _STATIC
        elif isinstance(kind, dict):
            module.rope_type = dict.fromkeys(kind, _STATIC)
