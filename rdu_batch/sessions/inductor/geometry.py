"""Names and shapes of what lies in an inductor artifact; torch only, so sessions open fast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

GRAPHS: Final = ("prefill", "decode")
WEIGHTS_FILE: Final = "weights.safetensors"
#: The decode kernels that graphs for cpu call, as a shared library.
KERNELS_FILE: Final = "kernels.so"
#: Name of the model inside a graph: a weight is known to the graph as "model." plus its own name.
WEIGHT_PREFIX: Final = "model."
#: What stands before the reason why a process that compiles a graph refused to.
REFUSED: Final = "refused: "
TORCH_DTYPES: Final = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class GraphSettings:
    """What decides a compiled graph, besides config and weights."""

    dtype: str
    max_seq_length: int
    prefill_chunk: int
    cache_length: int
    instruction_set: str
    #: ``Artifact.layouts``: how changed tensors of the weights file lie.
    layouts: Mapping[str, str]
    #: ``Artifact.without``: names of patches left out, to measure what they buy.
    without: tuple[str, ...] = ()
    #: ``Target.device``: where the graph computes, and where its inputs lie.
    device: str = "cpu"

    def to_argument(self) -> str:
        """One command-line argument that ``from_argument`` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, argument: str) -> GraphSettings:
        """Read what ``to_argument`` wrote."""
        leaves = json.loads(argument)
        return cls(**{**leaves, "without": tuple(leaves["without"])})


@dataclass(frozen=True)
class CacheShape:
    """Shape of the key/value cache: a pair of [1, num_kv_heads, L, head_size] for each layer."""

    num_layers: int
    num_kv_heads: int
    head_size: int

    def zeros(
        self, cache_length: int, dtype: torch.dtype, device: str | torch.device = "cpu"
    ) -> list[Tensor]:
        """Fresh keys, or values, of all layers."""
        shape = (1, self.num_kv_heads, cache_length, self.head_size)
        return [torch.zeros(shape, dtype=dtype, device=device) for _ in range(self.num_layers)]


def cache_shape_of(config: Any) -> CacheShape:
    """The cache shape a transformers config asks for.

    Raises:
        ArtifactError: the config does not say one shape for all layers; says no more than that.
    """
    config = config.get_text_config()
    try:
        num_heads = int(config.num_attention_heads)
        return CacheShape(
            num_layers=int(config.num_hidden_layers),
            num_kv_heads=int(getattr(config, "num_key_value_heads", None) or num_heads),
            head_size=int(getattr(config, "head_dim", None) or config.hidden_size // num_heads),
        )
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            "its config does not say one number and size of key/value heads for all layers: "
            + str(error).partition(". ")[0]
        ) from error


def cache_length_for(max_seq_length: int, prefill_chunk: int) -> int:
    """Positions the cache tensors hold: whole chunks, and at least one position never attended to.

    Prefill attends to whole chunks, so up to the end of the longest prompt's last one; decode
    attends to ``max_seq_length`` positions at most.

    The spare one keeps the attended length below the cache's own: the exported graph excludes
    equality, because a view of a whole tensor has other strides than a part of it.
    """
    longest_prefill = -(-(max_seq_length - 1) // prefill_chunk) * prefill_chunk
    return (max(longest_prefill, max_seq_length) // prefill_chunk + 1) * prefill_chunk


def graph_file(graph: str) -> str:
    """File name of a compiled graph."""
    return f"{graph}.pt2"


def constants_file(graph: str) -> str:
    """File name of what a graph needs besides weights, such as rotary frequencies."""
    return f"{graph}.constants.safetensors"
