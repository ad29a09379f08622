"""The door every session kind stands behind: batch size 1, one session a worker, kept for life.

Promises: the tokens of a row depend on that row alone; ``reset`` forgets everything.
Does not: tokenize, sample, stop, or know about rows; see ``decode_loop.py`` for that.

Shapes: S prompt length in tokens (1 <= S < max_seq_length), V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rdu_batch.errors import SessionBroken

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SessionInfo:
    """What a session can hold, and what it runs on."""

    #: Name of the kind: ``inductor``, ``samba``, ``rdu_engine``, ``eager``, ``fake``; or a plug-in.
    kind: str
    #: Positions of the key/value cache: prompt and generated tokens together.
    max_seq_length: int
    #: Tokens per full prefill call inside the session; 1 where there are no chunks.
    prefill_chunk: int
    vocab_size: int
    #: ``bf16`` or ``fp32``: the weights' and activations' type.
    dtype: str
    #: Intra-op threads, pinned for the life of the session.
    threads: int
    #: Static lengths of the prefill graphs, ascending, where a prompt goes whole through the
    #: shortest one that holds it; empty where there are none.
    prefill_lengths: tuple[int, ...] = ()

    def check_prompt(self, input_ids_1S: Sequence[int]) -> list[int]:
        """The prompt's ids as a list, if a session with these limits can take them.

        Raises:
            ValueError: too short, too long, or an id outside the vocabulary.
        """
        ids = list(map(int, input_ids_1S))
        if not 1 <= len(ids) < self.max_seq_length:
            raise ValueError(
                f"a prompt of {len(ids)} tokens; wanted 1 to {self.max_seq_length - 1}"
            )
        self._check_id(min(ids))
        self._check_id(max(ids))
        return ids

    def check_decode(self, token_id: int, position: int, next_position: int | None) -> None:
        """Whether this token may be fed at this position; ``next_position`` is None without a row.

        Raises:
            ValueError: the position does not follow the last one, or does not fit, or the id is
                outside the vocabulary.
        """
        if position != next_position:
            wanted = "a prefill first" if next_position is None else next_position
            raise ValueError(f"decode at position {position}, wanted {wanted}")
        if position >= self.max_seq_length:
            raise ValueError(f"position {position} is outside 0..{self.max_seq_length - 1}")
        self._check_id(token_id)

    def _check_id(self, token_id: int) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"token id {token_id} is outside 0..{self.vocab_size - 1}")


class Step(NamedTuple):
    """What one prefill or decode call gives back. A tuple, as one is made for each token."""

    #: Arg max of the logits; the lowest id wins a tie.
    token_id: int
    #: [1, V] float32 when the call asked for logits, otherwise None. Owned by the caller.
    logits_1V: Tensor | None = None


class Session(Protocol):
    """One loaded, compiled model, ready to generate one row at a time."""

    @property
    def info(self) -> SessionInfo:
        """Limits, dtype and vocabulary; constant for the life of the session."""

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        """Start a row: forget the row before, fill the cache with the prompt, score what follows.

        Args:
            input_ids_1S: the prompt's token ids, 1 <= S < max_seq_length.
            want_logits: also return the logits after the last prompt token.

        Raises:
            ValueError: S is out of range or an id is outside the vocabulary. A programming error:
                the decode loop turns prompts that are too long into dead letters before this.
            SessionBroken: the device failed, or the chosen logit is not finite. Ends the worker.
            RowError: ``numerical_error``: the device says that it cannot compute with this row's
                numbers, and is ready for the next row. Ends the row.
        """

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        """Feed one token at ``position`` and score the next one.

        Positions follow each other: the first decode after a prompt of S tokens is at position S,
        and the last possible one is ``max_seq_length - 1``.

        Raises:
            ValueError: the position does not follow the last one, or does not fit.
            SessionBroken: the device failed, or the chosen logit is not finite. Ends the worker.
            RowError: ``numerical_error``: the device says that it cannot compute with this row's
                numbers, and is ready for the next row. Ends the row.
        """

    def reset(self) -> None:
        """Forget the current row. The next call must be a prefill."""

    def close(self) -> None:
        """Give everything back. The session cannot be used afterwards; closing twice is fine."""


def check_logit(logit: float) -> None:
    """Refuse a greedy token whose logit is no finite number.

    Arg max takes a NaN for the highest logit, so looking at the chosen one finds any NaN.

    Raises:
        SessionBroken: the logit is NaN or infinite. Ends the worker.
    """
    if not math.isfinite(logit):
        raise SessionBroken(
            f"the session's highest logit is {logit}, wanted a finite number; the model or its "
            "weights are damaged, or overflow in this dtype"
        )
