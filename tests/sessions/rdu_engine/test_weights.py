"""The folder that the runtime reads weights from; read back here by the format's own library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.inductor.weights import write_tensors
from rdu_batch.sessions.rdu_engine.weights import checkpoint_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

TENSORS = {
    "transformer.wte.weight": torch.arange(6.0).reshape(3, 2),
    "transformer.h.0.attn.c_attn.weight": torch.arange(12.0).reshape(2, 6),
}
FP32, BF16 = "TENSOR_DTYPE_FP32", "TENSOR_DTYPE_BF16"


@pytest.fixture
def local(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact], monkeypatch: pytest.MonkeyPatch
) -> LocalArtifact:
    """An artifact whose head is its embedding."""
    monkeypatch.setenv("RDU_BATCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "artifact"
    folder.mkdir()
    write_tensors(folder / "weights.safetensors", TENSORS)
    layouts = {"lm_head.weight": "alias:transformer.wte.weight"}
    return artifact_of(folder, kind="samba", layouts=layouts, digest="sha256:1")


def spec(**wanted: tuple[list[int], str]) -> dict[str, Any]:
    """As the runtime describes weights."""
    return {name: {"shape": shape, "dtype": dtype} for name, (shape, dtype) in wanted.items()}


def test_weights_lie_under_the_pef_s_names_in_its_layout_and_type(local: LocalArtifact) -> None:
    """Products transposed, tied weights each their own, and none that is not wanted."""
    wanted = spec(
        lm_head__weight=([3, 2], FP32), transformer__h__0__attn__c_attn__weight=([6, 2], BF16)
    )
    folder = checkpoint_folder(local, wanted)
    found = load_file(folder / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert found["lm_head__weight"].equal(TENSORS["transformer.wte.weight"])
    product = found["transformer__h__0__attn__c_attn__weight"]
    assert product.equal(TENSORS["transformer.h.0.attn.c_attn.weight"].t().bfloat16())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == dict.fromkeys(wanted, "model.safetensors")
    assert index["metadata"]["total_size"] == 6 * 4 + 12 * 2


def test_a_pef_may_use_the_checkpoint_s_own_names(local: LocalArtifact) -> None:
    """Which of the two a compiler writes is not public."""
    wanted = spec(**{"transformer.wte.weight": ([3, 2], FP32)})
    found = load_file(checkpoint_folder(local, wanted) / "model.safetensors")
    assert found.keys() == wanted.keys()


def test_the_folder_is_made_once_and_again_where_it_is_damaged(local: LocalArtifact) -> None:
    """Private, in the node's cache; another PEF's weights are another folder."""
    wanted = spec(lm_head__weight=([3, 2], FP32))
    folder = checkpoint_folder(local, wanted)
    assert folder.parent.stat().st_mode & 0o077 == 0
    path = folder / "model.safetensors"
    before, content = path.stat().st_ino, path.read_bytes()
    assert checkpoint_folder(local, wanted) == folder
    assert path.stat().st_ino == before
    path.write_bytes(content[:-1] + b"?")
    assert checkpoint_folder(local, wanted) == folder
    assert path.read_bytes() == content
    assert checkpoint_folder(local, spec(lm_head__weight=([3, 2], BF16))) != folder


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (spec(odd=([1], FP32)), "PEF wants 1 weights that the artifact does not have, such as odd"),
        (
            spec(lm_head__weight=([2, 3], FP32)),
            r"\[2, 3\]; the artifact has torch.float32 \[3, 2\]",
        ),
        (spec(lm_head__weight=([3, 2], "TENSOR_DTYPE_INT8")), "types that weights may have are"),
        ({"lm_head__weight": {"shape": []}}, r"wants lm_head__weight as None \[\]"),
    ],
)
def test_a_weight_that_the_artifact_has_not_is_refused(
    local: LocalArtifact, wanted: dict[str, Any], said: str
) -> None:
    """By name, shape and type, before anything is written."""
    with pytest.raises(ArtifactError, match=said) as caught:
        checkpoint_folder(local, wanted)
    assert caught.value.exit_code == 8
