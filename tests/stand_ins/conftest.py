"""Puts the stand-ins on the path, new for each test as for a new process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

STAND_INS = Path(__file__).parent
SETTINGS = ("FAULTS", "LOGITS_DTYPE", "RUNTIME_VERSION", "TILES", "EVENTS")


PROGRAMS = (
    *("sambaflow", "rdu_engine"),
    *("tutorial_program", "multigraph_program", "engine_program"),
)


def forget() -> None:
    """Drop what a new process would not have."""
    for name in list(sys.modules):
        if name.partition(".")[0] in PROGRAMS:
            del sys.modules[name]


@pytest.fixture
def forget_modules() -> Callable[[], None]:
    """What makes the next import of a program as new as in another process."""
    return forget


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A stand-in as a new process would import it, with no settings."""
    monkeypatch.syspath_prepend(STAND_INS)
    monkeypatch.setenv("PYTHONPATH", str(STAND_INS))
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(f"SAMBAFLOW_STAND_IN_{name}", raising=False)
    forget()
    yield
    importlib.import_module("sambaflow.stand_in").end_process()
    importlib.import_module("rdu_engine.stand_in.engine").ENGINE.release_tiles()
    forget()


@pytest.fixture
def program(_stand_in: None) -> ModuleType:
    """The right program, with its own stand-in."""
    return importlib.import_module("tutorial_program")


@pytest.fixture
def stand_in(_stand_in: None) -> ModuleType:
    """What only tests may import."""
    return importlib.import_module("sambaflow.stand_in")


@pytest.fixture
def pef(program: ModuleType, tmp_path: Path) -> str:
    """A PEF of the right program."""
    return program.compiled_pef(tmp_path / "out")
