"""Prefill, round by round: a matrix product, a prefill, a matrix product again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rdu_batch.sessions.bench.rounds import PrefillRound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdu_batch.sessions.bench.plain import PlainModel
    from rdu_batch.sessions.bench.rates import MatrixProduct
    from rdu_batch.sessions.door import Session


def prefill_rounds(
    session: Session,
    ids: Sequence[int],
    product: MatrixProduct,
    num_rounds: int,
    eager: PlainModel | None = None,
) -> list[PrefillRound]:
    """Time a prefill of a row that shares nothing with the one before, up to its first token.

    Args:
        session: whose prefill is timed.
        ids: the prompt.
        product: what its matrix products are held against.
        num_rounds: how often.
        eager: also time the first token of ``transformers.generate`` in each round.
    """
    cold_prefill_s(session, ids)
    rounds = []
    for _ in range(num_rounds):
        before = product.flop_per_s()
        prefill_s = cold_prefill_s(session, ids)
        after = product.flop_per_s()
        eager_s = None if eager is None else eager.first_token_s()
        rounds.append(PrefillRound(prefill_s, before, after, eager_s))
    return rounds


def cold_prefill_s(session: Session, ids: Sequence[int]) -> float:
    """Seconds of one prefill; ``reset`` keeps it from using chunks of the row before."""
    session.reset()
    begin_s = time.perf_counter()
    session.prefill(ids)
    return time.perf_counter() - begin_s
