"""Which graphs a PEF is asked to have, and what its note then says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import ArtifactError, UsageError
from rdu_batch.sessions.canary import canary_lengths
from rdu_batch.sessions.compile_settings import CompileSettings
from rdu_batch.sessions.samba.pef import PefNote

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

SINGLE = PefNote("a.pef", "single", True, 1, 64, (), "1")
CACHED = PefNote("a.pef", "cached", True, 1, 64, ("--arch", "sn20"), "1", (16, 64))


def settings(**changes: Any) -> CompileSettings:
    return CompileSettings(
        **{"dtype": "fp32", "max_seq_length": 1024, "kind": "samba", "graphs": "cached", **changes}
    )


def test_static_lengths_are_powers_of_two_up_to_the_limit_unless_they_are_named() -> None:
    """The limit is always among them; a single graph has none."""
    assert settings().static_lengths == (64, 128, 256, 512, 1024)
    assert settings(max_seq_length=100).static_lengths == (64, 100)
    assert settings(max_seq_length=48).static_lengths == (48,)
    assert settings(prefill_lengths=(1024, 8, 300)).static_lengths == (8, 300, 1024)
    assert settings(graphs="single").static_lengths == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"graphs": "double"}, "graphs 'double': wanted single or cached"),
        ({"kind": "inductor"}, "graphs cached of kind inductor: only kind samba"),
        ({"kind": "eager"}, "graphs cached of kind eager: only kind samba"),
        ({"inference": False}, "graphs cached without --inference"),
        ({"graphs": "single", "prefill_lengths": (1024,)}, "prefill_lengths 1024: .*--graphs"),
        ({"prefill_lengths": (128, 512)}, "prefill_lengths 128,512: .*1024"),
        ({"prefill_lengths": (512, 2048, 1024)}, "prefill_lengths 512,2048,1024"),
        ({"prefill_lengths": (0, 1024)}, "prefill_lengths 0,1024"),
        ({"prefill_lengths": (64, 64, 1024)}, "64,64,1024: one is there twice"),
    ],
)
def test_graphs_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    """Before anything is loaded."""
    with pytest.raises(UsageError, match=said):
        settings(**changes)


@pytest.mark.parametrize("note", [SINGLE, CACHED])
def test_a_note_is_read_as_it_was_written(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact], note: PefNote
) -> None:
    """Lengths and flags are tuples again."""
    note.write(tmp_path)
    assert PefNote.read(artifact_of(tmp_path, kind="samba")) == note


@pytest.mark.parametrize(
    ("note", "leaves"),
    [
        (SINGLE, {"graph": "cached"}),
        (SINGLE, {"graph": "double"}),
        (SINGLE, {"graph": ["single"]}),
        (SINGLE, {"version": 2}),
        (SINGLE, {"batch_size": 8}),
        (SINGLE, {"flags": None}),
        (SINGLE, {"odd": 1}),
        (SINGLE, {"max_seq_length": 48}),
        (SINGLE, {"prefill_lengths": [64]}),
        (CACHED, {"graph": "single"}),
        (CACHED, {"prefill_lengths": []}),
        (CACHED, {"prefill_lengths": [16]}),
        (CACHED, {"prefill_lengths": [64, 16]}),
        (CACHED, {"prefill_lengths": [16, 16, 64]}),
        (CACHED, {"prefill_lengths": [0, 64]}),
        (CACHED, {"prefill_lengths": "long"}),
        (CACHED, {"prefill_lengths": 64}),
    ],
)
def test_a_note_of_another_pef_or_a_damaged_one_is_refused(
    tmp_path: Path,
    artifact_of: Callable[..., LocalArtifact],
    note: PefNote,
    leaves: dict[str, object],
) -> None:
    """Before the device is asked for anything."""
    note.write(tmp_path)
    path = tmp_path / "samba.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **leaves}))
    with pytest.raises(ArtifactError, match=r"samba\.json") as caught:
        PefNote.read(artifact_of(tmp_path, kind="samba"))
    assert caught.value.exit_code == 8


def test_a_note_without_prefill_lengths_is_one_of_a_single_graph(
    tmp_path: Path, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """As all were before there were other graphs."""
    SINGLE.write(tmp_path)
    path = tmp_path / "samba.json"
    leaves = json.loads(path.read_text())
    del leaves["prefill_lengths"]
    path.write_text(json.dumps(leaves))
    assert PefNote.read(artifact_of(tmp_path, kind="samba")) == SINGLE


def test_the_canary_goes_through_each_prefill_graph() -> None:
    """One token more than a static length holds takes the next one."""
    assert canary_lengths(1, 1024, (64, 300, 1024)) == (1, 2, 17, 65, 301)
