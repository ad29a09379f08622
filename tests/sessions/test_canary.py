"""The canary: the same for the same bits, another for a single other bit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from rdu_batch.sessions.canary import canary_lengths, canary_of
from rdu_batch.sessions.door import SessionInfo, Step
from rdu_batch.sessions.fake import FakeSession

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Bent:
    """A fake with chunks, whose logits can be one bit off at one length of the row."""

    bent_at: int | None = None
    max_seq_length: int = 64
    prefill_chunk: int = 8
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._inner = FakeSession(max_seq_length=self.max_seq_length)
        self.info: SessionInfo = replace(
            self._inner.info, kind="bent", prefill_chunk=self.prefill_chunk
        )

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        self.lengths.append(len(input_ids_1S))
        return self._bend(self._inner.prefill(input_ids_1S, want_logits=want_logits))

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        self.lengths[-1] = position + 1
        return self._bend(self._inner.decode(token_id, position, want_logits=want_logits))

    def _bend(self, step: Step) -> Step:
        import torch

        assert step.logits_1V is not None
        if self.lengths[-1] == self.bent_at:
            step.logits_1V.view(torch.int32)[0, 17] ^= 1
        return step

    def reset(self) -> None:
        self._inner.reset()

    def close(self) -> None:
        self._inner.close()


def test_sessions_that_compute_the_same_have_the_same_canary() -> None:
    """Whatever they did before."""
    used = Bent()
    used.prefill([1, 2, 3], want_logits=True)
    assert canary_of(used) == canary_of(used) == canary_of(Bent())
    assert canary_of(Bent()).startswith("sha256:")


@pytest.mark.parametrize("bent_at", [1, 2, 3, 8, 9, 10, 11])
def test_one_other_bit_in_one_shape_is_another_canary(bent_at: int) -> None:
    """Of a short prompt, a full chunk, a chunk and a rest, or a decode."""
    assert canary_of(Bent(bent_at)) != canary_of(Bent())


def test_a_row_is_forgotten_after_the_canary() -> None:
    """The first real row starts from nothing."""
    session = FakeSession()
    canary_of(session)
    with pytest.raises(ValueError, match="prefill"):
        session.decode(1, 3)


@pytest.mark.parametrize(
    ("prefill_chunk", "max_seq_length", "wanted"),
    [
        (64, 1024, (1, 64, 65)),
        (1, 1024, (1, 2, 17)),
        (64, 65, (1, 64)),
        (64, 64, (1,)),
        (2, 2, (1,)),
    ],
)
def test_canary_lengths_touch_each_shape_and_stay_below_the_limit(
    prefill_chunk: int, max_seq_length: int, wanted: tuple[int, ...]
) -> None:
    """A part of a chunk, a whole one, one with a rest."""
    assert canary_lengths(prefill_chunk, max_seq_length) == wanted


@pytest.mark.parametrize("max_seq_length", [2, 3, 4, 9])
def test_a_tiny_context_has_a_canary_too(max_seq_length: int) -> None:
    """No call goes past the last position."""
    assert canary_of(Bent(max_seq_length=max_seq_length, prefill_chunk=2)).startswith("sha256:")
    assert canary_of(FakeSession(max_seq_length=max_seq_length)).startswith("sha256:")
