"""The model inside an artifact, as what it was compiled from; and what a variant needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.bench.rates import read_function_name
from rdu_batch.sessions.bench.variant import check_compiler, check_same_code, write_plain_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact


@pytest.mark.slow
@pytest.mark.parametrize("family", [pytest.param("llama", marks=pytest.mark.all_only), "gpt2"])
def test_an_artifact_gives_back_the_checkpoint_it_was_compiled_from(
    family: str,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    tiny_checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Every tensor by its name, shape and bits, and a config that transformers loads."""
    import torch
    from transformers import AutoModelForCausalLM

    write_plain_folder(tiny_artifact("inductor", family), tmp_path / "model")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    wanted = AutoModelForCausalLM.from_pretrained(tiny_checkpoint(family)).state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
    assert (tmp_path / "model" / "tokenizer.json").is_file()
    assert not (tmp_path / "model" / "decode.pt2").exists()


@pytest.mark.slow
def test_an_artifact_of_other_kernels_is_not_compared(
    tiny_artifact: Callable[[str, str], LocalArtifact],
    artifact_of: Callable[..., LocalArtifact],
    tmp_path: Path,
) -> None:
    """It would differ by more than its patches; one of this very code is fine."""
    local = tiny_artifact("inductor", "llama")
    check_same_code(local)
    (tmp_path / "kernels.so").write_bytes(b"\0rdu_batch_read_00ff00ff00ff\0")
    other = artifact_of(tmp_path, target=local.artifact.target)
    with pytest.raises(ArtifactError, match=r"rdu_batch_read_00ff00ff00ff.*compile the model"):
        check_same_code(other)


def test_without_a_compiler_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the one that is missing."""
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(UsageError, match="no /nowhere/g"):
        check_compiler()


def test_the_reading_loop_is_found_by_its_name_among_others() -> None:
    """Whole names only."""
    names = b"\0aoti_torch_cpu_row_products_ab12\0rdu_batch_read_ab12\0_edata\0"
    assert read_function_name(names) == "rdu_batch_read_ab12"
    assert read_function_name(b"\0rdu_batch_readers_ab12\0") is None
