"""Where a model comes from: folders, weights by name, and everything that must not be guessed."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from rdu_batch.errors import InputError, UsageError
from rdu_batch.sessions.checkpoint import ModelSource, find_checkpoint
from rdu_batch.sessions.plain_model import load_model, read_config, save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

FAMILIES = pytest.mark.parametrize("family", ["llama", "gpt2"])


def load(source: ModelSource) -> Any:
    """The model a source stands for."""
    checkpoint = find_checkpoint(source)
    return load_model(checkpoint, read_config(checkpoint.config_path), torch.float32)


def named(place: Path, weights: Path) -> ModelSource:
    """A config and weights by name; the tokenizer from the model's folder."""
    return ModelSource(
        config_name=str(place / "config.json"),
        checkpoint_name=str(weights),
        tokenizer=str(place),
    )


@pytest.fixture
def plain(tiny_checkpoint: Callable[[str], Path]) -> Any:
    """A tiny Llama through transformers alone."""
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint("llama"))


@FAMILIES
@pytest.mark.parametrize("style", ["safetensors", "torch", "nested", "tied left out"])
def test_a_model_from_config_and_weights_by_name_is_the_model(
    family: str, style: str, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """In each way that weights are kept in a file."""
    folder = tiny_checkpoint(family)
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    path = tmp_path / "weights.pt"
    if style == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    elif style == "tied left out" and family == "gpt2":
        torch.save({name: t for name, t in state.items() if name != "lm_head.weight"}, path)
    else:
        torch.save({"model_state_dict": state} if style == "nested" else state, path)
    found = load(named(folder, path)).state_dict()
    assert found.keys() == state.keys()
    assert all(found[name].equal(tensor) for name, tensor in state.items())


def test_weights_that_do_not_fit_are_all_listed(
    plain: Any, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Missing, unexpected and misshapen ones, by name and shape, in one error."""
    state = plain.state_dict()
    del state["model.norm.weight"]
    state["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 5)
    state["model.extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError) as caught:
        load(named(tiny_checkpoint("llama"), tmp_path / "weights.pt"))
    said = str(caught.value)
    assert "missing: model.norm.weight" in said
    assert "unexpected: model.extra.weight" in said
    assert "model.layers.0.mlp.up_proj.weight is [3, 5], the config wants [96, 64]" in said
    assert str(tmp_path / "weights.pt") in said


def test_a_folder_with_a_missing_weight_is_refused(
    plain: Any, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Transformers would fill it with random numbers and warn."""
    shutil.copytree(tiny_checkpoint("llama"), tmp_path / "copy")
    state = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    del state["model.layers.1.self_attn.q_proj.weight"]
    save_file(state, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"missing: model\.layers\.1\.self_attn\.q_proj\.weight"):
        load(ModelSource(str(tmp_path / "copy")))


def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Only tensors are read."""

    class Trap:
        """Makes a file when it is unpickled."""

        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "weights.pt").write_bytes(pickle.dumps({"a": Trap()}))
    torch.save({"a": Trap()}, tmp_path / "zipped.pt")
    for name in ("weights.pt", "zipped.pt"):
        with pytest.raises(InputError, match=name):
            load(named(tiny_checkpoint("llama"), tmp_path / name))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not weights"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_file_that_holds_no_weights_is_refused(
    name: str, content: bytes, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Whatever it claims to be."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load(named(tiny_checkpoint("llama"), tmp_path / name))


def test_something_else_saved_by_torch_is_refused(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """A list of tensors has no names."""
    torch.save([torch.zeros(1)], tmp_path / "weights.pt")
    with pytest.raises(InputError, match="names to tensors"):
        load(named(tiny_checkpoint("llama"), tmp_path / "weights.pt"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (ModelSource(), "no weights"),
        (ModelSource(config_name="config.json"), "random weights"),
        (ModelSource(checkpoint_name="w.pt"), "no config"),
        (ModelSource(config_name="c.json", checkpoint_name="w.pt"), "no tokenizer"),
    ],
)
def test_a_source_that_leaves_something_open_is_refused(source: ModelSource, said: str) -> None:
    """Saying which flag closes it."""
    with pytest.raises(UsageError, match=said):
        find_checkpoint(source)


@pytest.mark.parametrize("place", ["./nowhere", "/nowhere/model", "missing.gguf"])
def test_a_path_that_is_not_there_is_refused_without_asking_the_hub(place: str) -> None:
    """What looks like a path is not a hub id."""
    with pytest.raises(InputError, match="no such file"):
        find_checkpoint(ModelSource(place))


def test_a_folder_without_a_tokenizer_is_refused(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """And --tokenizer helps."""
    shutil.copytree(tiny_checkpoint("llama"), tmp_path / "bare")
    for path in (tmp_path / "bare").glob("tokenizer*"):
        path.unlink()
    (tmp_path / "saved").mkdir()
    with pytest.raises(InputError, match="--tokenizer"):
        save_tokenizer(find_checkpoint(ModelSource(str(tmp_path / "bare"))), tmp_path / "saved")
    helped = ModelSource(str(tmp_path / "bare"), tokenizer=str(tiny_checkpoint("llama")))
    save_tokenizer(find_checkpoint(helped), tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()


def test_a_config_without_a_language_model_is_refused(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """As a folder of a vision model would be."""
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    torch.save({}, tmp_path / "weights.pt")
    source = ModelSource(
        config_name=str(tmp_path / "config.json"),
        checkpoint_name=str(tmp_path / "weights.pt"),
        tokenizer=str(tiny_checkpoint("llama")),
    )
    with pytest.raises(InputError, match="vit"):
        load(source)


def test_digests_follow_the_bytes_and_nothing_else(
    plain: Any, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Another place has the same digest, another weight or config has another."""
    first = find_checkpoint(ModelSource(str(tiny_checkpoint("llama"))))
    shutil.copytree(tiny_checkpoint("llama"), tmp_path / "copy")
    second = find_checkpoint(ModelSource(str(tmp_path / "copy")))
    assert second.model_digest() == first.model_digest()
    assert second.tokenizer_digest() == first.tokenizer_digest()
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text() + "\n")
    third = second.model_digest()
    assert third != first.model_digest()
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert second.model_digest() not in (first.model_digest(), third)
    assert second.tokenizer_digest() == first.tokenizer_digest()
