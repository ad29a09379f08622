"""Files of weights by name: what training programs save.

Promises: pickles are read with ``weights_only``, so no code of a file is run; weights that are no
plain numbers are refused. Does not: know models; see ``plain_model.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rdu_batch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

#: Keys under which training programs nest the weights.
_NESTED_KEYS = ("model", "state_dict", "model_state_dict")
#: Names listed of each kind of mistake; a wrong config can make thousands.
NUM_LISTED = 8
#: Of what another program says of a file.
_MOST_SAID_CHARS = 600


def read_named_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights by name: safetensors, or plain tensors saved by torch.

    Raises:
        InputError: it is neither, or holds weights that are no plain numbers.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            content: Any = dict(load_file(path))
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers of foreign files raise all sorts
        if path.suffix != ".safetensors" and not _begins_as_torch_saves(path):
            # What torch says of such a file is about pickles, which it is not.
            raise InputError(
                f"{path}: this is no checkpoint, neither a .safetensors file nor one that torch "
                "saved; save model.state_dict() with torch.save"
            ) from error
        raise InputError(
            f"{path}: neither a safetensors file nor plain tensors saved by torch "
            f"({said(error)}); save model.state_dict() and nothing else"
        ) from error
    for key in _NESTED_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in content.values()
    ):
        raise InputError(f"{path}: not a mapping from names to tensors; save model.state_dict()")
    _check_types(content, str(path))
    return content


def _begins_as_torch_saves(path: Path) -> bool:
    """Whether it begins as a zip file or, as older releases of torch save, a pickle."""
    with path.open("rb") as stream:
        return stream.read(4).startswith((b"PK\x03\x04", b"\x80"))


def _check_types(tensors: Mapping[str, Tensor], place: str) -> None:
    """Refuse weights that are no plain numbers, which would be taken for such without a word."""
    import torch

    plain = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    # Masks and counters that models keep beside their weights are whole numbers or truth values.
    beside = {torch.bool, torch.uint8, torch.int64}
    others = sorted(
        f"{name} is {tensor.dtype}"
        for name, tensor in tensors.items()
        if tensor.dtype not in plain
        and not (tensor.dtype in beside and not name.endswith(".weight"))
    )
    if others:
        more = "" if len(others) <= NUM_LISTED else f" and {len(others) - NUM_LISTED} more"
        raise InputError(
            f"{place}: {', '.join(others[:NUM_LISTED])}{more}; wanted weights as float32, float16 "
            "or bfloat16: save the model as it is before it is quantized"
        )


def said(error: Exception) -> str:
    """What another program's error says of a file, in bounded length."""
    text = f"{type(error).__name__}: {error}"
    # Some errors list every class that there is.
    return text if len(text) <= _MOST_SAID_CHARS else f"{text[:_MOST_SAID_CHARS]}..."
