"""Does this machine compute the same bits? One digest over a session's logits.

Promises: sessions with the same digest gave the same bits for fixed prompts through each compiled
shape: a part of a prefill chunk, a whole one, one with a rest, each prefill graph of a static
length, and single decodes after each.
Does not: say which digest is right, or cover every position of a long context.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from rdu_batch.errors import RowError, SessionBroken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.sessions.door import Session, Step

_NUM_DECODES: Final = 2
#: Does no sums that could differ; without its logits a dry run starts without torch.
_KINDS_WITHOUT_SUMS: Final = frozenset({"fake"})


def canary_of(session: Session) -> str:
    """Digest of a session's answers to fixed token ids: ``sha256:...``. Forgets the row after.

    Over each answer: the token, the logits' shape, and their float32 bytes (little-endian).

    Raises:
        SessionBroken: the session failed. Ends the worker.
    """
    try:
        return _canary_of(session)
    except RowError as error:
        # These prompts are no row's, and every worker computes them.
        raise SessionBroken(f"the canary's prompts cannot be computed: {error}") from error


def _canary_of(session: Session) -> str:
    digest = hashlib.sha256()
    session.reset()
    want_logits = session.info.kind not in _KINDS_WITHOUT_SUMS
    vocab_size, max_seq_length = session.info.vocab_size, session.info.max_seq_length
    for length in canary_lengths(
        session.info.prefill_chunk, max_seq_length, session.info.prefill_lengths
    ):
        ids = _fixed_ids(length + _NUM_DECODES, vocab_size)
        prompt_ids = [next(ids) for _ in range(length)]
        _add(digest, session.prefill(prompt_ids, want_logits=want_logits))
        for position in range(length, min(length + _NUM_DECODES, max_seq_length)):
            _add(digest, session.decode(next(ids), position, want_logits=want_logits))
    session.reset()
    return "sha256:" + digest.hexdigest()


def canary_lengths(
    prefill_chunk: int, max_seq_length: int, prefill_lengths: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Prompt lengths, in tokens, that touch each compiled shape; sorted, each below the limit.

    Few and short, so that a worker with a model of 10**8 weights loses about a second. What is one
    token too long for a static length goes through the next one.
    """
    wanted = {1, prefill_chunk, prefill_chunk + 1} | {length + 1 for length in prefill_lengths}
    if prefill_chunk == 1:
        # No chunks: any length is a shape of its own, so take one more than a vector's width.
        wanted.add(17)
    return tuple(sorted(length for length in wanted if length < max_seq_length))


def _fixed_ids(count: int, vocab_size: int) -> Iterator[int]:
    for index in range(count):
        named = hashlib.sha256(b"canary %d of %d" % (index, count)).digest()
        yield int.from_bytes(named[:8], "big") % vocab_size


def _add(digest: hashlib._Hash, answer: Step) -> None:
    digest.update(b"token %d\n" % answer.token_id)
    if answer.logits_1V is None:
        return
    import torch

    logits_1V = answer.logits_1V.detach().to(device="cpu", dtype=torch.float32).contiguous()
    digest.update(f"logits {tuple(logits_1V.shape)}\n".encode())
    digest.update(logits_1V.numpy().astype("<f4", copy=False).tobytes())
