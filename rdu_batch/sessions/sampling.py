"""Draw the next token of a row from its scores.

Promises: a draw depends on the scores, the settings and the row's own seed; nothing is shared
between rows. Temperature, top-k, top-p and min-p are transformers' own logits processors, in its
order. Does not: look at the tokens so far, or choose a greedy token (``choosing.py``).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, cast

from rdu_batch.errors import SessionBroken

if TYPE_CHECKING:
    from torch import LongTensor, Tensor

    from rdu_batch.job.spec import GenerationSpec


def row_seed_of(seed: int, path: str, line: int, sample: int = 0) -> int:
    """Seed of one row: 0 <= seed < 2**63, the same wherever and whenever the row is tried.

    Args:
        seed: the job's ``generation.seed``.
        path: the input file's relative path, as in the plan.
        line: the row's line number, from 1.
        sample: which of several samples of the same row, from 0.
    """
    named = json.dumps([seed, path, line, sample]).encode()
    return int.from_bytes(hashlib.sha256(named).digest()[:8], "big") >> 1


class Sampler:
    """Draws token ids for one row; holds the row's random state."""

    def __init__(self, generation: GenerationSpec, *, row_seed: int) -> None:
        import torch
        from transformers.generation.logits_process import (
            LogitsProcessorList,
            MinPLogitsWarper,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        self._random = torch.Generator(device="cpu").manual_seed(row_seed)
        # None of these processors looks at the tokens so far.
        self._no_ids = cast("LongTensor", torch.empty((1, 0), dtype=torch.long))
        self._processors = LogitsProcessorList()
        if generation.temperature != 1.0:
            self._processors.append(TemperatureLogitsWarper(float(generation.temperature)))
        if generation.top_k is not None:
            self._processors.append(TopKLogitsWarper(generation.top_k))
        if generation.top_p is not None and generation.top_p < 1.0:
            self._processors.append(TopPLogitsWarper(float(generation.top_p)))
        if generation.min_p is not None:
            self._processors.append(MinPLogitsWarper(float(generation.min_p)))

    def draw(self, logits_1V: Tensor) -> int:
        """One token id; consumes exactly one random number, so draws of a row never shift."""
        import torch

        with torch.inference_mode():
            logits_1V = logits_1V.to(device="cpu", dtype=torch.float64)
            highest = logits_1V.max()
            if not torch.isfinite(highest):
                raise SessionBroken(
                    f"the session's highest logit is {float(highest)}, wanted a finite number; the "
                    "model or its weights are damaged, or overflow in this dtype"
                )
            # Shifted below zero, so that a tiny temperature cannot overflow.
            scores_1V = self._processors(self._no_ids, logits_1V - highest)
            probabilities_V = torch.softmax(scores_1V[0], dim=-1)
            # One uniform number against the cumulative sum: the draw does not depend on how wide
            # the processor's vectors are, as torch.multinomial's exponentials may.
            cumulative_V = torch.cumsum(probabilities_V, dim=-1)
            uniform = torch.rand((), generator=self._random, dtype=torch.float64)
            token_id = int(torch.searchsorted(cumulative_V, uniform * cumulative_V[-1], right=True))
            # Rounding may land one past the last token that has any probability.
            return min(token_id, int(probabilities_V.nonzero()[-1]))
