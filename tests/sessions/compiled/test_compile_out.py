"""Where an artifact may be written, and which models are none for this program."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import transformers

from rdu_batch.errors import ArtifactError, InputError, StoreError, UsageError
from rdu_batch.sessions.compile_out import check_out
from rdu_batch.sessions.plain_model import check_causal, read_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors", "other/artifact.json"])
def test_a_folder_that_holds_other_files_is_refused(tmp_path: Path, name: str) -> None:
    """Among them a model's own folder, and the folder above other artifacts."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    with pytest.raises(UsageError, match=f"{name}.*a folder of its own"):
        check_out(str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_an_empty_place_and_an_interrupted_compile_are_fine_and_stay_as_they_are(
    tmp_path: Path,
) -> None:
    """Nothing is left of the trial to write."""
    check_out(str(tmp_path / "new"))
    for name in ("weights.safetensors", "decode.pt2", "tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes(b"half")
    check_out(str(tmp_path))
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"weights.safetensors", "decode.pt2", "tokenizer.json", "config.json"}


@pytest.mark.parametrize(
    "kind", [pytest.param("samba", marks=pytest.mark.all_only), "samba_cached"]
)
def test_a_compile_for_the_rdu_that_was_interrupted_may_be_begun_again(
    tmp_path: Path, tiny_artifact: Callable[[str, str], LocalArtifact], kind: str
) -> None:
    """Killed before it wrote artifact.json, it leaves the PEF, its note, and all the rest."""
    local = tiny_artifact(kind, "gpt2")
    assert {"artifact.pef", "samba.json"} < local.artifact.files.keys()
    for name in local.artifact.files:
        shutil.copy(local.path(name), tmp_path)
    check_out(str(tmp_path))


def test_a_place_that_is_a_file_is_found_before_the_work(tmp_path: Path) -> None:
    """Not after the compile."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        check_out(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (transformers.T5Config(architectures=["T5ForConditionalGeneration"]), "T5ForConditional"),
        (transformers.T5Config(), "t5"),
        (transformers.BertConfig(architectures=["BertForMaskedLM"]), "BertForMaskedLM"),
    ],
)
def test_a_model_for_another_task_is_refused_by_its_name(
    config: transformers.PretrainedConfig, said: str, tmp_path: Path
) -> None:
    """Before its weights are read; exit 8."""
    with pytest.raises(ArtifactError, match=f"{said}.*not a causal language model"):
        check_causal(config, tmp_path)


def test_a_causal_model_passes_with_or_without_a_name(tmp_path: Path) -> None:
    """Configs made by hand name no architecture."""
    check_causal(transformers.LlamaConfig(architectures=["LlamaForCausalLM"]), tmp_path)
    check_causal(transformers.GPT2Config(), tmp_path)


def test_an_artifact_that_is_compiled_again_is_told_to_be_one(tmp_path: Path) -> None:
    """Its config.json alone would look like a model's."""
    (tmp_path / "artifact.json").write_text("{}")
    with pytest.raises(InputError, match="an artifact, compiled already"):
        read_config(tmp_path)
