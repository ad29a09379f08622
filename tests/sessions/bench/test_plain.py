"""transformers.generate as it is timed: block by block, between which others run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdu_batch.sessions.bench.plain import PlainModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.artifact import LocalArtifact


def test_generate_stops_between_blocks_as_often_as_asked(
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """Eight tokens hold one block and most of another, so it begins several times."""
    plain = PlainModel(tiny_artifact("eager", "llama"), list(range(10)), new_tokens=8)
    found: list[float] = []
    plain.decode_blocks(5, found.append)
    assert len(found) == 5
    assert min(found) > 0
    assert plain.first_token_s() > 0
