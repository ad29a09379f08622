"""The exact GELU, by erf, in the place of one that is approximated by tanh.

A GPT-2 is trained with ``gelu_new``; the patch for the RDU computes the exact GELU instead, at most
0.0005 apart at any x. ``compile --gelu erf`` writes that into the artifact's config, so that every
kind of session computes what the RDU does.
Promises: a config without such an activation is refused, never left as it was. Does not: touch
code.
"""

from __future__ import annotations

from typing import Any, Final

from rdu_batch.errors import UsageError

#: Names that transformers gives to approximations by tanh.
_BY_TANH: Final = frozenset(
    {"gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"}
)
_EXACT: Final = "gelu"
#: Where configs keep the name of the activation.
_FIELDS: Final = ("activation_function", "hidden_act", "hidden_activation")


def use_exact_gelu(config: Any) -> None:
    """Change a transformers config in place.

    Raises:
        UsageError: it has no GELU by tanh. Ends the command (exit 2).
    """
    text_config = config.get_text_config()
    found = {
        name: getattr(text_config, name)
        for name in _FIELDS
        if isinstance(getattr(text_config, name, None), str)
    }
    changed = [name for name, activation in found.items() if activation in _BY_TANH]
    if not changed:
        said = ", ".join(f"{name}: {activation}" for name, activation in found.items())
        raise UsageError(
            f"--gelu erf: this {config.model_type} model has no GELU by tanh to replace "
            f"({said or 'its config names no activation'}); leave --gelu out"
        )
    for name in changed:
        setattr(text_config, name, _EXACT)
