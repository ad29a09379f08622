"""The stand-in for `rdu_engine` in this process, new for each test as for a new process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.door import Session

STAND_INS = Path(__file__).parents[2] / "stand_ins"


def _forget() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("sambaflow", "rdu_engine"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node's private cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[None]:
    """An engine that has run nothing; the process is left as it was."""
    monkeypatch.syspath_prepend(STAND_INS)
    monkeypatch.setenv("RDU_BATCH_CACHE", str(cache))
    before = signal.getsignal(signal.SIGTERM)
    _forget()
    yield
    _forget()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def open_engine(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Session]:
    """Opens a session, with settings of the stand-in."""
    from rdu_batch.sessions.registry import open_session

    def open_it(local: LocalArtifact, **settings: str) -> Any:
        for name, value in settings.items():
            monkeypatch.setenv(f"SAMBAFLOW_STAND_IN_{name}", value)
        return open_session("rdu_engine", local, threads=1)

    return open_it


@pytest.fixture(scope="session")
def artifact(tiny_artifact: Callable[[str, str], LocalArtifact]) -> LocalArtifact:
    """The tiny GPT-2, compiled with a cache by the stand-in for SambaFlow."""
    return tiny_artifact("samba_cached", "gpt2")
