"""The tiny GPT-2 on the stand-in, and by transformers: what the RDU's model must say, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact


@pytest.fixture(scope="session")
def exact_gpt2(tiny_checkpoint: Callable[[str], Path]) -> Any:
    """In fp32, no patch of this program in it."""
    from transformers import GPT2LMHeadModel

    place = tiny_checkpoint("gpt2")
    return GPT2LMHeadModel.from_pretrained(place, activation_function="gelu").eval()


@pytest.fixture(scope="module")
def artifact(
    request: pytest.FixtureRequest, tiny_artifact: Callable[[str, str], LocalArtifact]
) -> LocalArtifact:
    """The tiny GPT-2, compiled by the stand-in; the test's module says to which graphs."""
    return tiny_artifact(request.module.GRAPHS, "gpt2")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stand-in writes a line for each call of ``session``."""
    return tmp_path_factory.mktemp("events") / "events.jsonl"


@pytest.fixture(scope="module")
def session(
    artifact: LocalArtifact, open_on_stand_in: Callable[..., Any], events: Path, poison_id: int
) -> Any:
    """One for all tests of a module that do not end it; cannot compute with ``poison_id``."""
    fault = json.dumps({"kind": "numerical", "token_id": poison_id})
    return open_on_stand_in(
        artifact, SAMBAFLOW_STAND_IN_EVENTS=str(events), SAMBAFLOW_STAND_IN_FAULTS=fault
    )
