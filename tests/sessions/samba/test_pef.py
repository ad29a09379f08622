"""What compiling makes of SambaFlow's answer: the PEF decides, not what was said on the way."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import ArtifactError, InputError, UsageError
from rdu_batch.sessions.compile_settings import CompileSettings
from rdu_batch.sessions.plain_model import read_config
from rdu_batch.sessions.samba.flow import SambaFlow, load_multigraph
from rdu_batch.sessions.samba.graph_inputs import graph_inputs
from rdu_batch.sessions.samba.pef import PefCompiler, PefNote

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.artifact import LocalArtifact

NOTE = PefNote("tiny.pef", "single", True, 1, 48, ("--arch", "sn20"), "1")


@dataclass
class Compiler:
    """A SambaFlow that compiles as it is told to; it checks no contract, unlike the stand-in."""

    makes_pef: bool = True
    raises: Exception | None = None
    argv: list[str] = field(default_factory=list)

    def flow(self) -> SambaFlow:
        samba = SimpleNamespace(
            addmm=None,
            from_torch_model_=lambda _model: None,
            from_torch_tensor=lambda tensor, name: (name, tensor),
            session=SimpleNamespace(compile=self._compile),
        )
        return SambaFlow(samba, None, lambda *_: None, self._parse, "1")

    def _parse(self, *, argv: list[str], **_parsers: Any) -> None:
        self.argv = argv

    def _compile(self, _model: Any, _inputs: Any) -> None:
        told = dict(zip(self.argv, self.argv[1:], strict=False))
        folder = Path(told["--output-folder"]) / told["--pef-name"]
        folder.mkdir()
        (folder / "tiny.mac.log").write_text("[error] no room on the tile\n")
        if self.makes_pef:
            (folder / f"{told['--pef-name']}.pef").write_bytes(b"PEF")
        if self.raises is not None:
            raise self.raises


@pytest.fixture
def folder(tmp_path: Path, tiny_artifact: Callable[[str, str], LocalArtifact]) -> Path:
    """An artifact as it is before the PEF: config and weights."""
    for name in ("config.json", "weights.safetensors"):
        shutil.copy(tiny_artifact("eager", "gpt2").folder / name, tmp_path)
    return tmp_path


def test_a_pef_that_is_there_counts_whatever_was_said(folder: Path) -> None:
    """SambaNova's own advice: the compiler may try again after an error."""
    compiler = Compiler(raises=RuntimeError("[error] odd"))
    said = PefCompiler(compiler.flow(), NOTE).compile(folder, "fp32")
    assert said == "compile: tiny.pef, by SambaFlow 1"
    assert (folder / "tiny.pef").read_bytes() == b"PEF"
    assert (folder / "samba.json").is_file()
    assert compiler.argv[:2] == ["compile", "--inference"]
    assert compiler.argv[-2:] == ["--arch", "sn20"]


@pytest.mark.parametrize("raises", [RuntimeError("all tiles full"), None])
def test_without_a_pef_the_error_holds_the_end_of_the_logs(
    folder: Path, raises: Exception | None
) -> None:
    """They lie in a folder that is gone by then."""
    compiler = Compiler(makes_pef=False, raises=raises)
    with pytest.raises(ArtifactError) as caught:
        PefCompiler(compiler.flow(), NOTE).compile(folder, "fp32")
    said = str(caught.value)
    assert "tiny.mac.log:\n[error] no room on the tile" in said
    assert ("all tiles full" if raises else "without an error") in said
    assert not (folder / "samba.json").exists()


def test_an_error_of_this_program_says_what_is_wrong_with_the_model(folder: Path) -> None:
    """No PEF can be made of weights that do not fit their config."""
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"n_layer": 2', '"n_layer": 3'))
    with pytest.raises(InputError, match=r"h\.2\."):
        PefCompiler(Compiler().flow(), NOTE).compile(folder, "fp32")


def test_more_positions_than_an_int16_counts_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions are int16 among the graph's inputs."""
    monkeypatch.setattr("rdu_batch.sessions.samba.pef.check_can_compile", lambda: None)
    monkeypatch.setattr("rdu_batch.sessions.samba.pef.load_sambaflow", Compiler().flow)
    settings = CompileSettings(dtype="fp32", max_seq_length=32769, kind="samba")
    with pytest.raises(UsageError, match="32768"):
        PefCompiler.of(read_config(folder), settings, "out/x")


def test_a_cache_has_as_many_positions_as_the_model_and_more_families(
    tiny_artifact: Callable[[str, str], LocalArtifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions are int32 there; a single graph of a Llama is refused with what there is."""
    monkeypatch.setattr("rdu_batch.sessions.samba.pef.check_can_compile", lambda: None)
    monkeypatch.setattr("rdu_batch.sessions.samba.pef.load_sambaflow", Compiler().flow)
    llama = read_config(tiny_artifact("eager", "llama").folder)
    settings = CompileSettings("fp32", 32769, kind="samba", graphs="cached")
    decides = PefCompiler.of(llama, settings, "out/x").settings
    assert (decides["graph"], decides["prefill_lengths"][-2:]) == ("cached", (32768, 32769))
    assert "pef" not in decides
    single = CompileSettings("fp32", 48, kind="samba")
    with pytest.raises(ArtifactError, match=r"llama: .* gpt2 alone .*--graphs cached"):
        PefCompiler.of(llama, single, "out/x")
    gpt2 = read_config(tiny_artifact("eager", "gpt2").folder)
    assert "prefill_lengths" not in PefCompiler.of(gpt2, single, "out/x").settings


@pytest.mark.parametrize("missing", ["sambaflow.samba.graph", "sambaflow.samba.utils"])
def test_a_sambaflow_without_multigraphs_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Older releases compile single graphs all the same."""
    for name in ("sambaflow", "sambaflow.samba", "sambaflow.samba.graph", "sambaflow.samba.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["sambaflow.samba"].SambaTensor = object  # type: ignore[attr-defined]
    sys.modules["sambaflow.samba.graph"].FwdGraph = object  # type: ignore[attr-defined]
    sys.modules["sambaflow.samba.utils"].trace_multigraph = object  # type: ignore[attr-defined]
    assert load_multigraph(Compiler().flow()).fwd_graph is object
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ArtifactError, match=r"SambaFlow 1 here does not have.*--graphs single"):
        load_multigraph(Compiler().flow())


def test_a_row_is_never_cropped() -> None:
    """The tutorial's padding by a negative number is an error here."""
    samba = Compiler().flow().samba
    for num_tokens in (0, 9):
        with pytest.raises(ValueError, match=f"{num_tokens} tokens for a graph of 8 positions"):
            graph_inputs(samba, [1] * num_tokens, 8)
    (_, ids), _, (_, mask), _, (_, positions), *rest = graph_inputs(samba, [5, 6, 7], 8)
    assert ids.tolist() == [[5, 6, 7, 0, 0, 0, 0, 0]]
    assert mask.tolist() == [[[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]]
    assert positions.tolist() == [list(range(8))]
    assert rest == [None] * 3
