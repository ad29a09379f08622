"""What is said where there is no `rdu_engine`: on every machine but an RDU's."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.registry import open_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact


@pytest.mark.skipif(
    importlib.util.find_spec("rdu_engine") is not None,
    reason="rdu_engine, or its stand-in, is here",
)
def test_opening_a_session_says_what_to_install_and_what_works(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """Before anything of the artifact is looked at."""
    with pytest.raises(ArtifactError) as caught:
        open_session("rdu_engine", artifact_of(tmp_path, kind="samba"), threads=1)
    said = str(caught.value)
    parts = ["No module named 'rdu_engine'", "pip install sambanova-rdu-engine-api"]
    for part in [*parts, "Python 3.11", "runtime libraries", "inductor", "eager", "fake", "samba"]:
        assert part in said
    assert caught.value.exit_code == 8


def test_an_older_runtime_is_told_from_none(
    tmp_path: Path,
    artifact_of: Callable[..., LocalArtifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that has the class under its deprecated name."""
    (tmp_path / "rdu_engine.py").write_text("class MLApp: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ArtifactError, match=r"has no PEF and no get_checkpoint_spec.*--upgrade"):
        open_session("rdu_engine", artifact_of(tmp_path, kind="samba"), threads=1)
    import sys

    del sys.modules["rdu_engine"]
