"""Compiling: what is written, what is refused, what is not done twice; and the verb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rdu_batch.cli.compile import compile_command
from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.artifact import ARTIFACT_FILE
from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.checkpoint import ModelSource
from rdu_batch.sessions.compile import compile_artifact
from rdu_batch.sessions.compile_settings import CompileSettings
from rdu_batch.sessions.eager import EagerSession
from rdu_batch.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def llama(tiny_checkpoint: Callable[[str], Path]) -> ModelSource:
    """A tiny Llama of 64 positions."""
    return ModelSource(str(tiny_checkpoint("llama")))


def compile_eager(source: ModelSource, out: Path, **changes: Any) -> Any:
    """Everything but the graphs."""
    settings = {"dtype": "fp32", "max_seq_length": 32, "kind": "eager"} | changes
    return compile_artifact(source, str(out), CompileSettings(**settings))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_weights_are_the_checkpoints_under_their_own_names(
    dtype: str, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Safetensors' own reader and transformers' own loader are the oracles."""
    torch_dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
    for family in ("llama", "gpt2"):
        out = tmp_path / family
        compile_eager(ModelSource(str(tiny_checkpoint(family))), out, dtype=dtype)
        found = load_file(out / "weights.safetensors")
        plain = AutoModelForCausalLM.from_pretrained(tiny_checkpoint(family), dtype=torch_dtype)
        wanted = plain.state_dict()
        if family == "gpt2":
            del wanted["lm_head.weight"]
        assert found.keys() == wanted.keys()
        assert all(found[name].equal(tensor) for name, tensor in wanted.items())


def test_an_eager_artifact_generates_what_transformers_does(
    llama: ModelSource, tmp_path: Path, assert_same_greedy_tokens: Callable[..., int]
) -> None:
    """From the artifact alone."""
    compile_eager(llama, tmp_path / "out")
    session = EagerSession.open(fetch_artifact(str(tmp_path / "out")), threads=1)
    plain = AutoModelForCausalLM.from_pretrained(llama.model_name_or_path).eval()
    assert assert_same_greedy_tokens(session, plain, [[1, 2, 3], [9] * 20], num_tokens=8) == 0


def test_compiling_again_does_nothing(llama: ModelSource, tmp_path: Path) -> None:
    """Same digest, no file touched."""
    out = tmp_path / "out"
    first = compile_eager(llama, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = compile_eager(llama, out)
    assert (first.already_compiled, again.already_compiled) == (False, True)
    assert again.artifact == first.artifact
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_the_same_model_gives_the_same_artifact_elsewhere(
    llama: ModelSource, tmp_path: Path
) -> None:
    """No time, host or path is in it."""
    first = compile_eager(llama, tmp_path / "one").artifact
    second = compile_eager(llama, tmp_path / "two").artifact
    assert first.digest == second.digest
    text = (tmp_path / "one" / ARTIFACT_FILE).read_text()
    assert str(tmp_path) not in text


@pytest.mark.parametrize("change", [{"dtype": "bf16"}, {"max_seq_length": 31}])
def test_another_artifact_is_never_overwritten(
    llama: ModelSource, tmp_path: Path, change: dict[str, Any]
) -> None:
    """A run may be using it."""
    compile_eager(llama, tmp_path / "out")
    before = (tmp_path / "out" / ARTIFACT_FILE).read_bytes()
    with pytest.raises(ArtifactError, match="another artifact"):
        compile_eager(llama, tmp_path / "out", **change)
    assert (tmp_path / "out" / ARTIFACT_FILE).read_bytes() == before


def test_a_folder_left_by_an_interrupted_compile_is_filled(
    llama: ModelSource, tmp_path: Path
) -> None:
    """Without artifact.json there is no artifact to protect."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "weights.safetensors").write_bytes(b"half")
    compile_eager(llama, out)
    fetch_artifact(str(out))


def test_an_artifact_can_be_written_to_any_store(llama: ModelSource, tmp_path: Path) -> None:
    """And comes back with the same digest."""
    url = f"memory://compiled/{tmp_path.name}"
    settings = CompileSettings(dtype="fp32", max_seq_length=8, kind="eager")
    assert compile_artifact(llama, url, settings).artifact.url == url


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_seq_length": 65}, "64 positions"),
        ({"max_seq_length": 1}, "max_seq_length is 1"),
        ({"dtype": "int8"}, "int8"),
        ({"kind": "tpu"}, "tpu"),
        ({"prefill_chunk": 1}, "prefill_chunk is 1"),
        ({"prefill_chunk": 0}, "prefill_chunk is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    llama: ModelSource, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """Before anything is loaded or written."""
    with pytest.raises(UsageError, match=said):
        compile_eager(llama, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("store", ["local", "remote"])
def test_a_damaged_artifact_is_compiled_again(
    store: str, llama: ModelSource, tmp_path: Path
) -> None:
    """What `fetch` says to do must help; elsewhere than here only sizes are looked at."""
    url = str(tmp_path / "out") if store == "local" else f"memory://damaged/{tmp_path.name}"
    settings: dict[str, Any] = {"dtype": "fp32", "max_seq_length": 32, "kind": "eager"}
    first = compile_artifact(llama, url, CompileSettings(**settings))
    name = "weights.safetensors"
    content = open_store(url).read(name)
    damaged = b"\x01" + content[1:] if store == "local" else content[:-1]
    open_store(url).put_whole(name, damaged)
    again = compile_artifact(llama, url, CompileSettings(**settings))
    assert not again.already_compiled
    assert again.artifact == first.artifact
    assert open_store(url).read(name) == content
    assert compile_artifact(llama, url, CompileSettings(**settings)).already_compiled


def test_a_full_temporary_folder_is_named(
    llama: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable that chooses another one."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ArtifactError, match=r"nowhere: cannot compile there.*TMPDIR"):
        compile_eager(llama, tmp_path / "out")


def invoke(*arguments: str) -> Any:
    """The verb in this process; errors come through."""
    return CliRunner().invoke(compile_command, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize("dash", ["_", "-"])
def test_the_verb_takes_flags_in_both_spellings_and_ends_with_one_json_line(
    dash: str, llama: ModelSource, tmp_path: Path
) -> None:
    """Stages go to stderr."""
    model = Path(str(llama.model_name_or_path))
    torch.save(AutoModelForCausalLM.from_pretrained(model).state_dict(), tmp_path / "weights.pt")
    flags = {
        "config_name": model / "config.json",
        "checkpoint_name": tmp_path / "weights.pt",
        "model_name_or_path": model,
        "max_seq_length": 32,
        "cache_dir": tmp_path,
        "output_folder": tmp_path,
        "pef_name": "out",
        "batch_size": 1,
    }
    written = [f"--{name.replace('_', dash)}={value}" for name, value in flags.items()]
    arguments = [*written, "--inference", "--kind=eager", "--dtype=fp32"]
    for already_compiled in (False, True):
        result = invoke(*arguments)
        assert result.exit_code == 0
        (line,) = result.stdout.splitlines()
        document = json.loads(line)
        assert document.pop("compile_s") >= 0
        assert document == {
            "artifact": f"{tmp_path}/out",
            "digest": fetch_artifact(str(tmp_path / "out")).artifact.digest,
            "kind": "eager",
            "dtype": "fp32",
            "weights": "plain",
            "max_seq_length": 32,
            "already_compiled": already_compiled,
            "exit": 0,
        }
        assert ("already compiled" in result.stderr) == already_compiled
        assert ("load:" in result.stderr) != already_compiled


def test_a_prefill_chunk_of_zero_is_refused_by_the_verb(tmp_path: Path) -> None:
    """Zero is a wrong number, not a missing one."""
    with pytest.raises(UsageError, match="prefill_chunk is 0"):
        invoke("m", "--max_seq_length=8", f"--out={tmp_path / 'out'}", "--prefill_chunk=0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m", "--max_seq_length=8"], "--out"),
        (["m", "--max_seq_length=8", "--out=x", "--batch-size=2"], "batch_size 2"),
        (["m", "--max_seq_length=8", "--out=x", "--model_name_or_path=n"], "MODEL is m"),
    ],
)
def test_flags_that_contradict_are_refused(arguments: list[str], said: str) -> None:
    """Before torch is imported."""
    with pytest.raises(UsageError, match=said):
        invoke(*arguments)


def test_help_needs_neither_torch_nor_transformers() -> None:
    """It is what a person waits for."""
    code = (
        "import sys; from rdu_batch.cli.compile import compile_command\n"
        "compile_command(['--help'], standalone_mode=False)\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'fsspec')))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert ended.returncode == 0
    assert b"--max_seq_length" in ended.stdout
