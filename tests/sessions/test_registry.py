"""Kinds by name, and what is said when one does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rdu_batch.errors import ArtifactError, SpecError
from rdu_batch.sessions.artifact import Target
from rdu_batch.sessions.fake import FakeSession
from rdu_batch.sessions.registry import FAKE_ARTIFACT_DIGEST, known_kinds, open_session
from rdu_batch.sessions.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.artifact import LocalArtifact

ROOT = Path(__file__).parents[2]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a plug-in: a module and its entry points, as pip lays them out."""

    def install_plug_in(name: str, points: dict[str, str], code: str = "") -> None:
        site = tmp_path / f"site_{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{kind} = {value}\n" for kind, value in points.items()]
        (info / "entry_points.txt").write_text("[rdu_batch.sessions]\n" + "".join(lines))
        monkeypatch.syspath_prepend(site)

    return install_plug_in


PLUG_IN = """
from rdu_batch.sessions.fake import FakeSession
class Session(FakeSession):
    @classmethod
    def open(cls, artifact, *, threads):
        return cls(max_seq_length=artifact.artifact.max_seq_length, threads=threads)
"""


def test_the_fake_session_opens_without_an_artifact() -> None:
    """And keeps the number of threads it was given."""
    session = open_session("fake", None, threads=3)
    assert isinstance(session, FakeSession)
    assert session.info.threads == 3


def test_the_fake_session_opens_beside_an_artifact_of_another_kind(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """So a dry run is one `--set session.kind=fake` away."""
    plain = open_session("fake", None, threads=1)
    beside = open_session("fake", artifact_of(tmp_path, max_seq_length=64), threads=1)
    assert beside.info == plain.info
    own = open_session("fake", artifact_of(tmp_path, kind="fake", max_seq_length=64), threads=1)
    assert own.info.max_seq_length == 64


def test_an_unknown_kind_is_refused_with_the_kinds_and_the_likely_one() -> None:
    """Before anything is imported or looked at."""
    with pytest.raises(SpecError) as caught:
        open_session("inductr", None, threads=1)
    (problem,) = caught.value.problems
    assert problem == (
        "unknown kind 'inductr'; known kinds are inductor, samba, rdu_engine, eager, fake; "
        "did you mean 'inductor'?"
    )


@pytest.mark.parametrize("kind", ["inductor", "samba", "rdu_engine", "eager"])
def test_a_kind_that_loads_an_artifact_asks_for_one(kind: str) -> None:
    """With what to do about it."""
    with pytest.raises(ArtifactError, match=f"session of kind {kind} loads.*rdu-batch compile"):
        open_session(kind, None, threads=1)


def test_an_artifact_of_another_kind_is_refused(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """Found and wanted kinds are named."""
    artifact = artifact_of(tmp_path, kind="samba")
    with pytest.raises(ArtifactError, match=r"kind samba, wanted inductor; use kind samba, or"):
        open_session("inductor", artifact, threads=1)


@pytest.mark.parametrize("kind", ["inductor", "eager", "rdu_engine"])
def test_what_rdu_engine_runs_is_compiled_for_samba(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact], kind: str
) -> None:
    """No artifact is of its own kind; the message says how to compile one that it opens."""
    said = rf"kind {kind}, wanted samba; use kind {kind}.* for samba with --graphs cached"
    with pytest.raises(ArtifactError, match=said):
        open_session("rdu_engine", artifact_of(tmp_path, kind=kind), threads=1)


def test_a_plug_in_is_a_kind_like_any_other(
    tmp_path: Path, install: Callable[..., None], artifact_of: Callable[..., LocalArtifact]
) -> None:
    """It is listed, opened on its own artifacts, and refuses others."""
    install("odd_device", {"odd": "odd_device:Session"}, PLUG_IN)
    assert known_kinds() == ("inductor", "samba", "rdu_engine", "eager", "fake", "odd")
    artifact = artifact_of(tmp_path, kind="odd", max_seq_length=77)
    assert open_session("odd", artifact, threads=1).info.max_seq_length == 77
    with pytest.raises(ArtifactError, match="kind inductor, wanted odd"):
        open_session("odd", artifact_of(tmp_path), threads=1)


def test_a_plug_in_cannot_replace_a_built_in_kind(install: Callable[..., None]) -> None:
    """What `fake` means does not depend on what is installed."""
    install("impostor", {"fake": "impostor:Session"}, PLUG_IN)
    assert type(open_session("fake", None, threads=1)) is FakeSession


def test_two_plug_ins_of_one_name_are_refused(install: Callable[..., None]) -> None:
    """Which one would be opened is not left to the order of folders."""
    install("first_device", {"odd": "first_device:Session"}, PLUG_IN)
    install("second_device", {"odd": "second_device:Session"}, PLUG_IN)
    with pytest.raises(SpecError, match=r"first_device:Session, second_device:Session.*uninstall"):
        open_session("odd", None, threads=1)


@pytest.mark.parametrize("value", ["broken_device:Session", "broken_device:Missing"])
def test_a_plug_in_that_cannot_be_loaded_says_why(
    tmp_path: Path,
    install: Callable[..., None],
    artifact_of: Callable[..., LocalArtifact],
    value: str,
) -> None:
    """A missing library of the plug-in, or a class that is not there."""
    code = "import no_such_driver\n" if value.endswith("Session") else ""
    install("broken_device", {"odd": value}, code)
    with pytest.raises(ArtifactError, match=r"kind odd cannot be loaded here: broken_device"):
        open_session("odd", artifact_of(tmp_path, kind="odd"), threads=1)


def test_looking_up_kinds_imports_neither_torch_nor_transformers() -> None:
    """The registry, the tokenizer room and the loop start without them."""
    code = (
        "import sys\nimport rdu_batch.sessions.canary, rdu_batch.sessions.tokenizer\n"
        "import rdu_batch.sessions.decode_loop, rdu_batch.sessions.chat\n"
        "from rdu_batch.sessions.registry import known_kinds\nknown_kinds()\n"
        "print([name in sys.modules for name in ('torch', 'transformers', 'ray')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.stdout == "[False, False, False]\n", done.stderr


def test_the_digest_of_no_artifact_is_a_constant() -> None:
    """A job of fake sessions resumes on any machine."""
    assert FAKE_ARTIFACT_DIGEST == (
        "sha256:f4661cc6d5b4ee0c3307e99227af0f5748b93e7105cd21cb899d5ba4a72de4ae"
    )


def test_an_artifact_of_another_transformers_is_refused(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """By sessions and tokenizers alike, before anything is loaded; the message says what to do."""
    local = artifact_of(tmp_path, target=Target(transformers_version="4.0.0"))
    with pytest.raises(ArtifactError, match=r"pip install transformers==4\.0\.0"):
        open_session("eager", local, threads=1)
    with pytest.raises(ArtifactError, match=r"pip install transformers==4\.0\.0"):
        open_tokenizer("eager", local)
    assert open_session("fake", local, threads=1).info.kind == "fake"


def test_the_version_check_imports_no_transformers() -> None:
    """It looks at what is installed."""
    code = (
        "import sys; from rdu_batch.sessions import library_versions\n"
        "from importlib.metadata import version\n"
        "class Found: url = ''\n"
        "class Target: transformers_version = version('transformers')\n"
        "Found.target = Target; library_versions.check_transformers(Found)\n"
        "sys.exit('transformers' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT)
    assert ended.returncode == 0
