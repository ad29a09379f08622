"""``transformers.generate`` on an artifact's own weights: what a compiled session is held against.

Greedy, with transformers' own growing cache, in the artifact's type, with the same threads, from
the same prompt. Promises: decode is timed from token to token inside one call of ``generate``, so
its prefill is not part of it. Does not: tune transformers; see ``tests/benchmarks/LOG.md``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from rdu_batch.sessions.inductor.geometry import TORCH_DTYPES, WEIGHTS_FILE
from rdu_batch.sessions.inductor.weights import map_tensors, original_tensors
from rdu_batch.sessions.plain_model import build_model, read_config

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rdu_batch.sessions.artifact import LocalArtifact

#: Tokens timed between two rounds of the compiled session, at most: about as long as a round.
_BLOCK_TOKENS = 3


class PlainModel:
    """The model of an artifact as plain transformers has it, and one prompt."""

    def __init__(self, local: LocalArtifact, ids: Sequence[int], new_tokens: int) -> None:
        """Build the model and generate twice, so that nothing is done for the first time later.

        Raises:
            ArtifactError: the artifact's weights cannot be read.
            InputError: they do not fit its config.
        """
        artifact = local.artifact
        begin_s = time.perf_counter()
        weights = original_tensors(map_tensors(local.path(WEIGHTS_FILE)), artifact.layouts)
        self._model = build_model(
            read_config(local.folder), weights, TORCH_DTYPES[artifact.dtype], place=artifact.url
        ).requires_grad_(False)
        #: Seconds to build the model, importing its code included.
        self.open_s = time.perf_counter() - begin_s
        self._ids_1S = torch.tensor([list(ids)])
        self._new_tokens = new_tokens
        self._block_tokens = min(_BLOCK_TOKENS, new_tokens - 2)
        for _ in range(2):
            self._generate(2)

    def first_token_s(self) -> float:
        """Seconds from the call of ``generate`` to its first token."""
        begin_s = time.perf_counter()
        self._generate(1)
        return time.perf_counter() - begin_s

    def decode_blocks(self, num_blocks: int, between: Callable[[float], None]) -> None:
        """Generate until there are so many blocks; ``generate`` waits while ``between`` runs.

        Args:
            num_blocks: how many.
            between: called after each block with its tokens/s.
        """
        left = num_blocks
        while left > 0:
            clock = _Clock(self._block_tokens, between, left)
            self._generate(self._new_tokens, clock)
            left = clock.left

    def _generate(self, num_tokens: int, clock: _Clock | None = None) -> None:
        model: Any = self._model
        model.generate(
            self._ids_1S,
            attention_mask=torch.ones_like(self._ids_1S),
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            streamer=clock,
        )


class _Clock:
    """Stands where ``generate`` hands out each token, and times blocks of them.

    Its first call brings the prompt, the second the prefill's token; after these, and after each
    stop, one token does not count.
    """

    def __init__(self, block_tokens: int, between: Callable[[float], None], left: int) -> None:
        self._block_tokens, self._between = block_tokens, between
        #: Blocks still wanted.
        self.left = left
        self._num_until_count = 3
        self._num_counted = 0
        self._begin_s = 0.0

    def put(self, _token: Any) -> None:
        """Note a token; transformers calls this."""
        now_s = time.perf_counter()
        if self._num_until_count > 0:
            self._num_until_count -= 1
            self._begin_s = now_s
            return
        self._num_counted += 1
        if self._num_counted < self._block_tokens or self.left == 0:
            return
        self.left -= 1
        self._num_counted, self._num_until_count = 0, 1
        self._between(self._block_tokens / (now_s - self._begin_s))

    def end(self) -> None:
        """Nothing is kept back; transformers calls this."""
