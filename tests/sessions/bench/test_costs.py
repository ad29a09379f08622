"""What a token and a prompt cost, against numbers counted by hand and by torch's own counter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.bench.costs import (
    ModelShape,
    StoredTensor,
    cache_bytes_per_position,
    prefill_flop,
    read_stored,
    weight_bytes_per_token,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

EMBEDDING = StoredTensor(num_bytes=1000 * 16 * 2, shape=(1000, 16))
LAYER = StoredTensor(num_bytes=64 * 16 * 2, shape=(64, 16))


def test_of_a_table_that_is_only_looked_up_one_row_is_read() -> None:
    """16 numbers of 2 bytes, and everything else whole."""
    stored = {"embed": EMBEDDING, "layer": LAYER, "head": EMBEDDING}
    assert weight_bytes_per_token(stored, {}, {"embed"}) == 32 + 2048 + 32000


def test_a_table_that_the_head_shares_is_read_whole_and_once() -> None:
    """The head is an alias of it."""
    stored = {"embed": EMBEDDING, "layer": LAYER}
    assert weight_bytes_per_token(stored, {"head": "alias:embed"}, {"embed"}) == 32000 + 2048


def test_a_transposed_tensor_counts_like_any_other() -> None:
    """A layout that is no alias changes nothing."""
    assert weight_bytes_per_token({"layer": LAYER}, {"layer": "transposed"}, set()) == 2048


def test_bytes_are_those_of_the_file_whatever_type_they_have(tmp_path: Path) -> None:
    """A header is all that is read: types that no session knows count too."""
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "quantized": {"dtype": "I8", "shape": [64, 16], "data_offsets": [0, 1024]},
            "scales": {"dtype": "F32", "shape": [64], "data_offsets": [1024, 1280]},
        }
    ).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1280))
    stored = read_stored(path)
    assert stored["quantized"] == StoredTensor(num_bytes=1024, shape=(64, 16))
    assert weight_bytes_per_token(stored, {}, set()) == 1280


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    """With its name."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes((4).to_bytes(8, "little") + b"none")
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        read_stored(path)


def test_keys_and_values_of_each_layer_are_read() -> None:
    """2 x 30 layers x 3 heads x 64 numbers x 2 bytes."""
    assert cache_bytes_per_position(30, 3, 64, 2) == 23040


def test_a_prefill_of_two_chunks_counted_by_hand() -> None:
    """Attention of the second chunk is over the first one too; the head counts once."""
    shape = ModelShape(
        num_layers=2,
        num_heads=4,
        head_size=8,
        product_params=1000,
        head_params=500,
        tables=frozenset(),
    )
    products = 2 * 1000 * (16 + 8)
    attention = 2 * (4 * 16 * 16 * 32 + 4 * 8 * 24 * 32)
    assert prefill_flop(shape, [16, 8]) == products + attention + 2 * 500


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prefill_executes_what_torch_counts_in_plain_transformers(
    family: str, tiny_artifact: Callable[[str, str], LocalArtifact]
) -> None:
    """Of one unpadded chunk; plain attention computes the whole square as well."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    from rdu_batch.sessions.bench.model_costs import shape_of
    from rdu_batch.sessions.plain_model import read_config

    local, num_tokens = tiny_artifact("eager", family), 24
    config = read_config(local.folder)
    plain: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(torch.arange(num_tokens)[None], logits_to_keep=1)
    assert prefill_flop(shape_of(local), [num_tokens]) == counter.get_total_flops()


def test_a_gpt2_reads_one_row_of_its_positions_and_all_of_its_shared_table(
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """Everything in the file but 63 of 64 positions."""
    from rdu_batch.sessions.bench.model_costs import costs_of
    from rdu_batch.sessions.inductor.geometry import WEIGHTS_FILE

    local = tiny_artifact("eager", "gpt2")
    stored = read_stored(local.path(WEIGHTS_FILE))
    positions = stored["transformer.wpe.weight"]
    assert positions.shape[0] == 64
    everything = sum(tensor.num_bytes for tensor in stored.values())
    wanted = everything - positions.num_bytes * 63 // 64
    assert costs_of(local, 8).weight_bytes == wanted
