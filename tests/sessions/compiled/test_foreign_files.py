"""Checkpoints that are damaged, hostile or in two places: an error with the file, or one answer."""

from __future__ import annotations

import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from rdu_batch.errors import InputError
from rdu_batch.sessions.checkpoint import ModelSource, find_checkpoint
from rdu_batch.sessions.plain_model import load_model, read_config, save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def load(source: ModelSource) -> Any:
    """The model a source stands for."""
    checkpoint = find_checkpoint(source)
    return load_model(checkpoint, read_config(checkpoint.config_path), torch.float32)


@pytest.fixture
def llama(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny Llama's folder of this test's own."""
    return shutil.copytree(tiny_checkpoint("llama"), tmp_path / "llama")


def write_eos(folder: Path, eos_token_id: int) -> Path:
    """A generation config that a test can tell from others."""
    folder.mkdir(exist_ok=True)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": eos_token_id}))
    return path


@pytest.mark.parametrize("suffix", ["folder", "gguf"])
def test_code_beside_a_checkpoint_is_not_run_whatever_stdin_says(
    suffix: str,
    llama: Path,
    tiny_gguf: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Transformers would ask, and take a `y` from a pipe for the user's word."""
    place = llama if suffix == "folder" else tiny_gguf(llama / "model.gguf")
    (llama / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass Evil: pass\n"
    )
    config = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (llama / "tokenizer_config.json").write_text(json.dumps(config))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    (tmp_path / "saved").mkdir()
    with pytest.raises(InputError, match="custom code"):
        save_tokenizer(find_checkpoint(ModelSource(str(place))), tmp_path / "saved")
    assert not (tmp_path / "ran").exists()


def test_a_cut_safetensors_file_in_a_folder_is_named(llama: Path) -> None:
    """As a download that ended early leaves it."""
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"llama: transformers cannot load it: SafetensorError"):
        load(ModelSource(str(llama)))


def test_a_text_file_as_weights_is_named(llama: Path) -> None:
    """Old pickles read each byte as a command, and fail in many ways."""
    (llama / "x.pt").write_text("hello there\n")
    source = ModelSource(str(llama), checkpoint_name=str(llama / "x.pt"))
    with pytest.raises(InputError, match=r"x\.pt: this is no checkpoint, neither"):
        load(source)


def test_a_cut_gguf_file_is_named(tiny_gguf: Callable[[Path], Path], tmp_path: Path) -> None:
    """In the middle of its metadata."""
    path = tiny_gguf(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(InputError, match=r"model\.gguf: no config"):
        read_config(path)
    (tmp_path / "saved").mkdir()
    with pytest.raises(InputError, match=r"model\.gguf: no tokenizer"):
        save_tokenizer(find_checkpoint(ModelSource(str(path))), tmp_path / "saved")


def test_a_wrongly_typed_config_is_named(llama: Path) -> None:
    """A word where a number belongs."""
    config = json.loads((llama / "config.json").read_text()) | {"hidden_size": "many"}
    (llama / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"llama: no config"):
        read_config(llama)


def test_a_folder_called_tokenizer_is_no_file_of_the_tokenizer(llama: Path) -> None:
    """It neither breaks the digest nor changes it."""
    checkpoint = find_checkpoint(ModelSource(str(llama)))
    before = checkpoint.tokenizer_digest()
    (llama / "tokenizer").mkdir()
    assert checkpoint.tokenizer_digest() == before


def test_the_generation_config_beside_the_config_goes_first(llama: Path, tmp_path: Path) -> None:
    """With weights by name, and before the one in the model's folder; it is loaded and digested."""
    write_eos(llama, 5)
    state = AutoModelForCausalLM.from_pretrained(llama).state_dict()
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    other = tmp_path / "other"
    path = write_eos(other, 7)
    shutil.copy(llama / "config.json", other)
    by_name = ModelSource(
        config_name=str(other),
        checkpoint_name=str(tmp_path / "w.safetensors"),
        tokenizer=str(llama),
    )
    for source in (by_name, ModelSource(str(llama), config_name=str(other))):
        assert load(source).generation_config.eos_token_id == 7
        before = find_checkpoint(source).model_digest()
        write_eos(other, 8)
        assert find_checkpoint(source).model_digest() != before
        write_eos(other, 7)
        write_eos(llama, 6)
        assert find_checkpoint(source).model_digest() == before
    path.unlink()
    assert load(by_name).generation_config.eos_token_id == 1


def test_the_models_generation_config_counts_where_the_config_has_none(
    llama: Path, tmp_path: Path
) -> None:
    """It is loaded, so it is digested."""
    write_eos(llama, 5)
    (tmp_path / "other").mkdir()
    config = shutil.copy(llama / "config.json", tmp_path / "other")
    source = ModelSource(str(llama), config_name=str(config))
    assert load(source).generation_config.eos_token_id == 5
    before = find_checkpoint(source).model_digest()
    write_eos(llama, 6)
    assert find_checkpoint(source).model_digest() != before


def test_a_single_file_has_the_same_digest_under_any_name(llama: Path, tmp_path: Path) -> None:
    """Config and weights, each by name."""
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        config = shutil.copy(llama / "config.json", tmp_path / name / f"{name}.json")
        weights = shutil.copy(llama / "model.safetensors", tmp_path / f"{name}.safetensors")
        source = ModelSource(
            config_name=str(config), checkpoint_name=str(weights), tokenizer=str(llama)
        )
        digests.append(find_checkpoint(source).model_digest())
    assert digests[0] == digests[1]
