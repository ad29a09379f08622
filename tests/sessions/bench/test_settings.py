"""What cannot be measured is refused before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import UsageError
from rdu_batch.sessions.artifact import Target
from rdu_batch.sessions.bench.settings import BenchSettings, prompt_ids

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threads": 0}, "--threads is 0, wanted 1 or more"),
        ({"prompt_tokens": 0}, "--prompt-tokens is 0, wanted 1 or more"),
        ({"new_tokens": 2}, "--new-tokens is 2, wanted 3 or more"),
        ({"sessions": 0}, "--sessions is 0, wanted 1 or more"),
        ({"rounds": 0}, "--rounds is 0, wanted 1 or more"),
        ({"keep": "folder"}, "--keep keeps what --without compiles"),
    ],
)
def test_settings_that_cannot_be_say_what_was_wanted(changes: dict[str, Any], words: str) -> None:
    """Each by the name of its option."""
    with pytest.raises(UsageError, match=words):
        BenchSettings(**{"artifact_url": "model", "threads": 1} | changes)


@pytest.mark.parametrize(
    ("artifact", "settings", "words"),
    [
        ({"kind": "eager"}, {}, "of kind eager, bench measures kind inductor"),
        (
            {"target": Target(device="cuda")},
            {"sessions": 2},
            "compiled for cuda; --without and --sessions measure artifacts of device cpu",
        ),
        ({"threads": 4}, {}, "compiled for 4 threads, asked for 1; use --threads 4"),
        (
            {"max_seq_length": 64},
            {"prompt_tokens": 60, "new_tokens": 5},
            "are 65 together, but .* max_seq_length 64; use 64 or less",
        ),
    ],
)
def test_an_artifact_that_cannot_be_measured_so_says_why(
    artifact: dict[str, Any],
    settings: dict[str, Any],
    words: str,
    artifact_of: Callable[..., LocalArtifact],
    tmp_path: Path,
) -> None:
    """With what was found and what was wanted."""
    found = artifact_of(tmp_path, **artifact).artifact
    chosen = {"prompt_tokens": 8, "new_tokens": 4} | settings
    with pytest.raises(UsageError, match=words):
        BenchSettings("model", 1, **chosen).check_artifact(found)


def test_a_row_may_fill_the_artifact_to_its_limit(
    artifact_of: Callable[..., LocalArtifact], tmp_path: Path
) -> None:
    """60 and 4 of 64."""
    found = artifact_of(tmp_path, max_seq_length=64).artifact
    BenchSettings("model", 1, prompt_tokens=60, new_tokens=4).check_artifact(found)


def test_default_lengths_are_cut_for_a_short_artifact(
    artifact_of: Callable[..., LocalArtifact], tmp_path: Path
) -> None:
    """What was asked for is not: that is refused."""
    short = artifact_of(tmp_path, max_seq_length=100).artifact
    fitted = BenchSettings("model", 1).fitted(short)
    assert (fitted.prompt_tokens, fitted.new_tokens) == (67, 33)
    fitted.check_artifact(short)
    asked = BenchSettings("model", 1, prompt_tokens=128, new_tokens=65)
    assert asked.fitted(short) == asked
    long = artifact_of(tmp_path, max_seq_length=192).artifact
    assert BenchSettings("model", 1).fitted(long) == BenchSettings("model", 1)


def test_an_unknown_patch_names_the_known_ones() -> None:
    """In the order they stand."""
    settings = BenchSettings("model", 1, without=("row_kernel", "row_kernle"))
    with pytest.raises(UsageError, match=r"row_kernle: there is no such patch.*row_kernel, other"):
        settings.check_patches(["row_kernel", "other"])


def test_a_prompt_is_within_the_vocabulary_and_not_all_one_token() -> None:
    """The same each time."""
    ids = prompt_ids(200, 100)
    assert ids == prompt_ids(200, 100)
    assert set(ids) == set(range(100))
