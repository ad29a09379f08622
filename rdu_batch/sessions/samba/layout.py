"""How the weights of a GPT-2 lie: as transformers has them, or transposed by the patch.

transformers keeps GPT-2's products as ``Conv1D``: weights (in, out). The patch turns them into
(out, in), and so do checkpoints that were saved from a patched model. Which of the two a file holds
is told by shapes, block by block: ``c_attn`` is (n, 3n) or (3n, n), never square. ``attn.c_proj``
is square and follows its block.

Promises: a file that holds both is refused; weights of any other shape are handed on as they are,
for the loader to refuse by name. Does not: read files.

Shapes: n hidden size.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

#: The products of a block, under the block's own name.
PRODUCTS: Final = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_WEIGHT: Final = re.compile(
    r"(?:^|\.)h\.(?P<block>\d+)\.(?:attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$"
)


def transposed_products(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in the other layout: those of products transposed, without a copy."""
    return {
        name: tensor.t() if _WEIGHT.search(name) and tensor.ndim == 2 else tensor
        for name, tensor in tensors.items()
    }


def own_layout(tensors: Mapping[str, Tensor], config: Any, *, place: str) -> dict[str, Tensor]:
    """Weights of a GPT-2 as transformers has them, in whichever of the two layouts they come.

    Args:
        tensors: weights by name.
        config: transformers' config of the model.
        place: where the tensors come from, for messages.

    Raises:
        InputError: some blocks are transposed and others are not. Ends the command (exit 4).
    """
    hidden_size = int(config.n_embd)
    inner_size = int(config.n_inner or 4 * hidden_size)
    shapes = {
        "attn.c_attn": (hidden_size, 3 * hidden_size),
        "mlp.c_fc": (hidden_size, inner_size),
        "mlp.c_proj": (inner_size, hidden_size),
    }
    names: dict[bool, str] = {}
    for name, tensor in tensors.items():
        if not _WEIGHT.search(name):
            continue
        shape = next((one for end, one in shapes.items() if f"{end}.weight" in name), None)
        if shape is None or shape[0] == shape[1]:
            continue
        if tuple(tensor.shape) in (shape, shape[::-1]):
            names.setdefault(tuple(tensor.shape) != shape, name)
    if len(names) == 2:
        raise InputError(
            f"{place}: {names[True]} is transposed, as a model patched for the RDU saves it, but "
            f"{names[False]} is not; nothing of it was loaded; save all weights from one model"
        )
    return transposed_products(tensors) if True in names else dict(tensors)
