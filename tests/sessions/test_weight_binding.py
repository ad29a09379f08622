"""Artifacts without weights, and a checkpoint's weights for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rdu_batch.errors import ArtifactError, InputError, UsageError
from rdu_batch.sessions.artifact import Artifact, LocalArtifact
from rdu_batch.sessions.artifact_store import (
    fetch_artifact,
    folder_of_pef,
    read_artifact,
    verify_artifact,
)
from rdu_batch.sessions.checkpoint import ModelSource
from rdu_batch.sessions.compile import compile_artifact
from rdu_batch.sessions.compile_settings import CompileSettings
from rdu_batch.sessions.registry import open_session
from rdu_batch.sessions.same_model import check_same_model
from rdu_batch.sessions.weight_binding import bind_weights, keep_bound

PROMPT = [9, 200, 31, 77, 5]
SETTINGS = CompileSettings(kind="eager", dtype="fp32", max_seq_length=48)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private cache for each test."""
    monkeypatch.setenv("RDU_BATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "artifacts"


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Callable[[str], Path]) -> Any:
    """The tiny GPT-2 by transformers alone."""
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(tiny_checkpoint("gpt2")).eval()


@pytest.fixture(scope="module")
def bare(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[[str], Path]
) -> Artifact:
    """Compiled of the tiny GPT-2's config alone."""
    folder = tiny_checkpoint("gpt2")
    source = ModelSource(
        config_name=str(folder / "config.json"), tokenizer=str(folder), without_weights=True
    )
    url = str(tmp_path_factory.mktemp("bare") / "artifact")
    return compile_artifact(source, url, SETTINGS).artifact


def save(path: Path, state: dict[str, torch.Tensor]) -> str:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return str(path)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in model.state_dict().items() if "lm_head" not in name}


def test_an_artifact_of_a_config_alone_has_no_weights_and_is_marked(bare: Artifact) -> None:
    """Neither the made-up ones; and it is not the artifact of any checkpoint."""
    document = json.loads((Path(bare.url) / "artifact.json").read_text())
    assert document["model"]["has_weights"] is False
    assert "weights.safetensors" not in bare.files
    assert not (Path(bare.url) / "weights.safetensors").exists()
    assert {"config.json", "tokenizer.json"} <= bare.files.keys()
    assert read_artifact(bare.url, needs_weights=False) == bare


def test_whatever_runs_rows_refuses_it(bare: Artifact) -> None:
    """Described or fetched; the message says how to bring weights."""
    for get in (read_artifact, fetch_artifact):
        with pytest.raises(ArtifactError, match=r"no weights, and none are made up.*--checkpoint"):
            get(bare.url)


def test_a_bound_artifact_computes_what_the_checkpoint_s_model_does(
    bare: Artifact, model: Any, tmp_path: Path
) -> None:
    """It is an artifact like any other: whole, with a digest over graphs and weights."""
    bound = bind_weights(bare.url, save(tmp_path / "w.pt", weights_of(model)))
    verify_artifact(bound)
    assert fetch_artifact(str(bound.folder)).artifact.digest == bound.artifact.digest
    assert bound.artifact.has_weights
    assert bound.artifact.digest != bare.digest
    session = open_session("eager", bound, threads=1)
    with torch.no_grad():
        wanted_1V = model(torch.tensor([PROMPT])).logits[:, -1]
    found_1V = session.prefill(PROMPT, want_logits=True).logits_1V
    torch.testing.assert_close(found_1V, wanted_1V)


def test_weights_are_bound_once_and_again_when_they_are_damaged(
    bare: Artifact, model: Any, tmp_path: Path, cache: Path
) -> None:
    """Other weights, or the same artifact compiled another way, are bound apart."""
    said: list[str] = []
    state = weights_of(model)
    path = save(tmp_path / "w.pt", state)
    first = bind_weights(bare.url, path, said.append)
    assert bind_weights(bare.url, path, said.append) == first
    assert len(said) == 1
    (first.folder / "weights.safetensors").write_bytes(b"")
    assert bind_weights(bare.url, path, said.append) == first
    verify_artifact(first)
    state["transformer.ln_f.bias"][0] += 1
    other = bind_weights(bare.url, save(tmp_path / "other.pt", state), said.append)
    assert other.artifact.digest != first.artifact.digest
    assert len(said) == 3
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("style", ["safetensors", "tied twice", "patched", "nested"])
def test_every_form_of_a_checkpoint_gives_the_same_weights(
    bare: Artifact, model: Any, tmp_path: Path, style: str
) -> None:
    """As transformers lays them or as the tutorial's patch does, in either kind of file."""
    state = weights_of(model)
    wanted = bind_weights(bare.url, save(tmp_path / "w.pt", state))
    path = tmp_path / "other.pt"
    if style == "safetensors":
        path = tmp_path / "other.safetensors"
    elif style == "tied twice":
        state = dict(model.state_dict())
    elif style == "nested":
        state = {"state_dict": state}  # type: ignore[dict-item]
    else:
        products = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        ends = tuple(f"{product}.weight" for product in products)
        state = {name: one.t() if name.endswith(ends) else one for name, one in state.items()}
    found = bind_weights(bare.url, save(path, state))
    name = "weights.safetensors"
    assert found.artifact.files[name] == wanted.artifact.files[name]


def without_a_key(state: dict[str, Any]) -> None:
    del state["transformer.h.1.mlp.c_fc.bias"]


def of_another_shape(state: dict[str, Any]) -> None:
    state["transformer.wpe.weight"] = torch.zeros(63, 64)


def with_a_key_too_many(state: dict[str, Any]) -> None:
    state["transformer.h.2.mlp.c_fc.bias"] = torch.zeros(256)


def of_another_type(state: dict[str, Any]) -> None:
    name = "transformer.h.0.attn.c_attn.weight"
    state[name] = state[name].to(torch.int8)


def with_a_head_of_its_own(state: dict[str, Any]) -> None:
    state["lm_head.weight"] = torch.ones(448, 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_a_key, r"missing: transformer\.h\.1\.mlp\.c_fc\.bias"),
        (of_another_shape, r"transformer\.wpe\.weight is \[63, 64\], the config wants \[64, 64\]"),
        (with_a_key_too_many, r"unexpected: transformer\.h\.2\.mlp\.c_fc\.bias"),
        (of_another_type, r"transformer\.h\.0\.attn\.c_attn\.weight is torch\.int8"),
        (with_a_head_of_its_own, r"lm_head\.weight"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_weights_that_do_not_fit_the_config_are_refused_by_name(
    bare: Artifact,
    model: Any,
    tmp_path: Path,
    cache: Path,
    change: Callable[[dict[str, Any]], None],
    said: str,
) -> None:
    """And nothing is left in the cache that could be taken for an artifact."""
    state = weights_of(model)
    change(state)
    with pytest.raises(InputError, match=said):
        bind_weights(bare.url, save(tmp_path / "w.pt", state))
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_checkpoint_that_is_not_there_is_an_input_error(bare: Artifact, tmp_path: Path) -> None:
    """Exit 4, with its name."""
    with pytest.raises(InputError, match=r"none\.pt: there is no such file"):
        bind_weights(bare.url, str(tmp_path / "none.pt"))


def test_weights_that_an_artifact_has_are_replaced_but_not_if_they_are_int8(
    tiny_artifact: Callable[[str, str], LocalArtifact],
    artifact_of: Callable[..., LocalArtifact],
    model: Any,
    tmp_path: Path,
) -> None:
    """As the tutorial's checkpoint replaces what ``--model_name_or_path`` brought."""
    whole = tiny_artifact("eager", "gpt2").artifact
    state = weights_of(model)
    state["transformer.ln_f.bias"] += 1
    path = save(tmp_path / "w.pt", state)
    bound = bind_weights(whole.url, path)
    name = "weights.safetensors"
    assert bound.artifact.files[name] != whole.files[name]
    folder = tmp_path / "int8"
    folder.mkdir()
    int8 = artifact_of(folder, weights="int8").artifact
    (folder / "artifact.json").write_bytes(int8.to_bytes())
    with pytest.raises(UsageError, match="its weights are int8"):
        bind_weights(str(folder), path)


def test_a_bound_artifact_can_be_kept_where_others_read_it(
    bare: Artifact, model: Any, tmp_path: Path
) -> None:
    """The same artifact, and nothing beside what somebody else put there."""
    bound = bind_weights(bare.url, save(tmp_path / "w.pt", weights_of(model)))
    url = keep_bound(bound, str(tmp_path / "kept"))
    assert fetch_artifact(url).artifact.digest == bound.artifact.digest
    assert keep_bound(bound, url) == url
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        keep_bound(bound, str(tmp_path / "taken"))


def test_compiling_without_weights_is_another_artifact_than_with_them(
    bare: Artifact, tiny_checkpoint: Callable[[str], Path]
) -> None:
    """Neither replaces the other; the same again does nothing."""
    folder = tiny_checkpoint("gpt2")
    with pytest.raises(ArtifactError, match="holds another artifact"):
        compile_artifact(ModelSource(str(folder)), bare.url, SETTINGS)
    source = ModelSource(str(folder), config_name=str(folder), without_weights=True)
    again = compile_artifact(source, bare.url, SETTINGS)
    assert again.already_compiled
    assert again.artifact.digest == bare.digest


def test_without_weights_there_is_a_config_and_nothing_int8(tmp_path: Path) -> None:
    """Exit 2, before anything is read."""
    with pytest.raises(UsageError, match="no config: it takes --config_name"):
        compile_artifact(ModelSource("m", without_weights=True), str(tmp_path / "a"), SETTINGS)
    int8 = CompileSettings(dtype="bf16", max_seq_length=48, weights="int8")
    with pytest.raises(UsageError, match="weights int8 without a checkpoint"):
        compile_artifact(ModelSource("m", without_weights=True), str(tmp_path / "a"), int8)


def test_a_pef_means_the_artifact_around_it(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """The PEF that the artifact lists, or the folder; a folder may end with .pef, too."""
    folder = tmp_path / "out" / "gpt2.pef"
    folder.mkdir(parents=True)
    (folder / "gpt2.pef").write_bytes(b"PEF")
    (folder / "artifact.json").write_bytes(artifact_of(folder, kind="samba").artifact.to_bytes())
    assert folder_of_pef(str(folder / "gpt2.pef")) == str(folder)
    assert folder_of_pef(str(folder)) == str(folder)
    (folder / "other.pef").write_bytes(b"PEF")
    with pytest.raises(ArtifactError, match=r"other\.pef: the artifact around it does not list"):
        folder_of_pef(str(folder / "other.pef"))
    (tmp_path / "bare.pef").write_bytes(b"PEF")
    with pytest.raises(ArtifactError, match=r"no artifact\.json here"):
        folder_of_pef(str(tmp_path / "bare.pef"))


def test_what_a_run_says_of_the_model_is_compared_with_the_artifact(
    bare: Artifact,
    tiny_checkpoint: Callable[[str], Path],
    save_tokenizer: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Another config or tokenizer is refused; the name of a hub is not looked up."""
    folder = tiny_checkpoint("gpt2")
    local = LocalArtifact(Path(bare.url), bare)
    same = {"config_name": str(folder / "config.json"), "tokenizer_name": str(folder)}
    assert check_same_model(local, **same) == []
    skipped = check_same_model(local, config_name="gpt2", tokenizer_name="gpt2")
    assert [line.partition(":")[0] for line in skipped] == [
        "--config_name gpt2",
        "--model_name_or_path gpt2",
    ]
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    with pytest.raises(UsageError, match="n_layer is 3, the artifact's is 2"):
        check_same_model(local, config_name=str(tmp_path / "config.json"), tokenizer_name=None)
    save_tokenizer(tmp_path / "other", "byte_fallback")
    with pytest.raises(UsageError, match="its tokenizer is not that of"):
        check_same_model(local, config_name=None, tokenizer_name=str(tmp_path / "other"))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no tokenizer that transformers reads"):
        check_same_model(local, config_name=None, tokenizer_name=str(tmp_path / "none"))


def test_a_config_that_only_names_a_tokenizer_is_none(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of such a folder transformers makes one without tokens, which would lose every prompt."""
    (tmp_path / "gpt2").mkdir()
    config = tiny_checkpoint("gpt2") / "config.json"
    (tmp_path / "gpt2" / "config.json").write_bytes(config.read_bytes())
    source = ModelSource(str(tmp_path / "gpt2"), config_name=str(config), without_weights=True)
    with pytest.raises(InputError, match="there is no tokenizer in it"):
        compile_artifact(source, str(tmp_path / "a"), SETTINGS)


def test_a_smaller_model_s_checkpoint_is_refused_by_its_shapes(
    bare: Artifact, model: Any, tmp_path: Path
) -> None:
    """With its tied head, at which transformers stumbles."""
    from transformers import GPT2Config, GPT2LMHeadModel

    small = GPT2LMHeadModel(GPT2Config(**{**model.config.to_dict(), "n_embd": 32}))
    with pytest.raises(InputError, match=r"lm_head\.weight is \[\d+, 32\], .* \[\d+, 64\]"):
        bind_weights(bare.url, save(tmp_path / "w.pt", small.state_dict()))


def test_masks_that_older_releases_saved_are_no_weights(
    bare: Artifact, model: Any, tmp_path: Path
) -> None:
    """Left out by name."""
    state = weights_of(model)
    for block in range(2):
        state[f"transformer.h.{block}.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
        state[f"transformer.h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
    assert bind_weights(bare.url, save(tmp_path / "w.pt", state)).artifact.has_weights


def test_what_is_no_file_of_weights_is_said_in_a_sentence(bare: Artifact, tmp_path: Path) -> None:
    """A folder, and a text."""
    with pytest.raises(InputError, match="this is a folder; name the file"):
        bind_weights(bare.url, str(tmp_path))
    (tmp_path / "w.pt").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"w\.pt: this is no checkpoint, [^\n]*$"):
        bind_weights(bare.url, str(tmp_path / "w.pt"))


@pytest.mark.parametrize("place", ["full2/", "jobs/x.json", "./a", "~/none", "a/b/c", "m.gguf"])
def test_a_path_that_is_not_there_is_no_name_of_a_hub(bare: Artifact, place: str) -> None:
    """In either command."""
    local = LocalArtifact(Path(bare.url), bare)
    with pytest.raises(InputError, match="there is no such file or folder"):
        check_same_model(local, config_name=None, tokenizer_name=place)
    with pytest.raises(InputError, match="there is no such"):
        compile_artifact(ModelSource(place), bare.url, SETTINGS)
