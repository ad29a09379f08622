"""Decode, round by round: memory is read, tokens are decoded, memory is read again.

Promises: what is compared is decoded in the same round, and takes turns at being first.
Does not: count the first token after anything else; see the package.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdu_batch.sessions.bench.rounds import SETTLE_S, DecodeRound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rdu_batch.sessions.bench.plain import PlainModel
    from rdu_batch.sessions.bench.rates import MemoryReader
    from rdu_batch.sessions.door import Session

#: Tokens timed in a round, at most: some hundred milliseconds of a small model.
_BLOCK_TOKENS = 12


@dataclass(frozen=True)
class Block:
    """Tokens that were decoded one after the other."""

    tokens_per_s: float
    #: Positions attended to, on average over the tokens.
    mean_positions: float


class Row:
    """One prompt, decoded up to a number of new tokens, again and again."""

    def __init__(self, session: Session, ids: Sequence[int], new_tokens: int) -> None:
        self._session, self._ids, self._new_tokens = session, ids, new_tokens
        self._token_id = 0
        self._position = self._end = 0
        #: Tokens timed at once, besides the one before them.
        self.block_tokens = min(_BLOCK_TOKENS, new_tokens - 2)

    def make_ready(self) -> None:
        """Begin the row anew if it has no room for another block."""
        if self._end - self._position > self.block_tokens:
            return
        self._token_id = self._session.prefill(self._ids).token_id
        self._position = len(self._ids)
        # The prefill gave the first new token; the last one is not fed.
        self._end = self._position + self._new_tokens - 1

    def decode_block(self) -> Block:
        """Decode one token that does not count, then time a block. ``make_ready`` was before."""
        self._decode_one()
        first, begin_s = self._position, time.perf_counter()
        for _ in range(self.block_tokens):
            self._decode_one()
        elapsed_s = time.perf_counter() - begin_s
        # A token at position p attends to p + 1 positions.
        return Block(self.block_tokens / elapsed_s, (first + self._position + 1) / 2)

    def _decode_one(self) -> None:
        self._token_id = self._session.decode(self._token_id, self._position).token_id
        self._position += 1


class DecodeBench:
    """Measures a session's decode, and a variant's beside it if there is one."""

    def __init__(
        self,
        reader: MemoryReader,
        bytes_of: Callable[[float], float],
        row: Row,
        variant: Row | None = None,
    ) -> None:
        """Gather what a round needs.

        Args:
            reader: reads memory before and after.
            bytes_of: bytes a token reads when it attends to so many positions.
            row: of the session to measure.
            variant: of another session, compared with the first.
        """
        self._reader, self._row, self._variant = reader, row, variant
        self._bytes_of = bytes_of
        self.rounds: list[DecodeRound] = []

    def run(self, num_rounds: int, eager: PlainModel | None = None) -> list[DecodeRound]:
        """So many rounds; with ``eager``, each between two blocks of its tokens."""
        self._row.make_ready()
        if eager is None:
            for _ in range(num_rounds):
                self._one_round(None)
        else:
            eager.decode_blocks(num_rounds, self._one_round)
        return self.rounds

    def _one_round(self, eager_tokens_per_s: float | None) -> None:
        rows = [row for row in (self._row, self._variant) if row is not None]
        for row in rows:
            row.make_ready()
        before = self._reader.before()
        blocks: dict[Row, Block] = {}
        turn = len(self.rounds) % len(rows)
        for row in rows[turn:] + rows[:turn]:
            if blocks:
                time.sleep(SETTLE_S)
            blocks[row] = row.decode_block()
        after = self._reader.after()
        found = blocks[self._row]
        self.rounds.append(
            DecodeRound(
                before=before,
                after=after,
                tokens_per_s=found.tokens_per_s,
                bytes_per_token=self._bytes_of(found.mean_positions),
                eager_tokens_per_s=eager_tokens_per_s,
                variant_tokens_per_s=blocks[self._variant].tokens_per_s if self._variant else None,
            )
        )
