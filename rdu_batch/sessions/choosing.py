"""Which token comes next in a row: the session's own, or one from its logits.

Promises: logits are asked for only where something needs them: sampling, a repetition penalty,
``min_new_tokens`` that are not reached yet, log-probabilities. Repetition penalty and
``min_new_tokens`` are transformers' own logits processors, in its order, over prompt and generated
tokens, in float32 as its ``generate`` has them. Does not: decide when a row ends.

Shapes: V vocabulary, N prompt and generated tokens so far.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.errors import RowError
from rdu_batch.job.records import Reason
from rdu_batch.sessions.door import check_logit
from rdu_batch.sessions.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rdu_batch.job.spec import GenerationSpec
    from rdu_batch.sessions.door import Step

#: Digits after the point of a log-probability: far fewer than float64 sums keep in any order.
LOGPROB_DECIMALS: Final = 6


class TokenChooser:
    """Chooses the tokens of one row, one after the other."""

    def __init__(
        self,
        generation: GenerationSpec,
        prompt_ids: Sequence[int],
        *,
        ending_ids: Sequence[int],
        row_seed: int,
    ) -> None:
        """Imports torch only where logits will be looked at.

        Args:
            generation: the row's settings.
            prompt_ids: the prompt's tokens; the repetition penalty counts them too.
            ending_ids: tokens of the vocabulary that would end the row; none of them is chosen
                among the first ``min_new_tokens``.
            row_seed: seeds the draws where the row is sampled.
        """
        is_sampled = generation.temperature > 0
        self._sampler = Sampler(generation, row_seed=row_seed) if is_sampled else None
        self._num_chosen = 0
        self._num_unending = generation.min_new_tokens if ending_ids else 0
        self._logprobs: list[float] | None = [] if generation.logprobs else None
        has_penalty = generation.repetition_penalty != 1
        self._always_wants_logits = is_sampled or has_penalty or generation.logprobs
        self._penalties: list[Any] = []
        self._unending_penalties: list[Any] = []
        self._ids_1N: Any = None
        if has_penalty or self._num_unending:
            import torch

            self._ids_1N = torch.tensor([list(prompt_ids)], dtype=torch.long)
            self._penalties = _penalties_of(generation)
            self._unending_penalties = [
                *self._penalties,
                *_endings_forbidden(len(prompt_ids), self._num_unending, ending_ids),
            ]

    @property
    def wants_logits(self) -> bool:
        """Whether the next step must come with its logits."""
        return self._always_wants_logits or self._num_chosen < self._num_unending

    @property
    def logprobs(self) -> tuple[float, ...] | None:
        """The log-probability of each token chosen so far; None unless asked for."""
        return None if self._logprobs is None else tuple(self._logprobs)

    def choose(self, step: Step) -> int:
        """The next token of the row.

        Raises:
            RowError: ``nothing_to_choose``. Ends the row.
            SessionBroken: a logit is no number. Ends the worker.
            ValueError: the step has no logits although they were wanted.
        """
        token_id = step.token_id
        if self.wants_logits:
            if step.logits_1V is None:
                raise ValueError("the session gave no logits although they were asked for")
            token_id = self._choose_from(step.logits_1V, token_id)
            if self._logprobs is not None:
                self._logprobs.append(log_probability(step.logits_1V, token_id))
        self._num_chosen += 1
        return token_id

    def _choose_from(self, logits_1V: Tensor, greedy_token_id: int) -> int:
        is_unending = self._num_chosen < self._num_unending
        processors = self._unending_penalties if is_unending else self._penalties
        if processors:
            logits_1V = _processed(logits_1V, self._ids_1N, processors)
            # The first of several highest, so the lowest id, as in a session.
            greedy_token_id = int(logits_1V.argmax(-1))
        token_id = greedy_token_id if self._sampler is None else self._sampler.draw(logits_1V)
        if processors:
            self._ids_1N = _with_token(self._ids_1N, token_id)
        return token_id


def log_probability(logits_1V: Tensor, token_id: int) -> float:
    """Natural log of the probability that the model gives a token, to ``LOGPROB_DECIMALS``."""
    import torch

    logits_V = logits_1V[0].to(device="cpu", dtype=torch.float64)
    value = float(logits_V[token_id] - torch.logsumexp(logits_V, dim=-1))
    # A probability of 1 may round to one above; adding 0 turns -0.0 into 0.0.
    return min(0.0, round(value, LOGPROB_DECIMALS)) + 0.0


def _penalties_of(generation: GenerationSpec) -> list[Any]:
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    if generation.repetition_penalty == 1:
        return []
    return [RepetitionPenaltyLogitsProcessor(float(generation.repetition_penalty))]


def _endings_forbidden(
    num_prompt_tokens: int, num_unending: int, ending_ids: Sequence[int]
) -> list[Any]:
    from transformers.generation.logits_process import MinNewTokensLengthLogitsProcessor

    if not num_unending:
        return []
    return [MinNewTokensLengthLogitsProcessor(num_prompt_tokens, num_unending, list(ending_ids))]


def _processed(logits_1V: Tensor, ids_1N: Tensor, processors: Sequence[Any]) -> Tensor:
    """What the processors make of the logits, in float32; the highest is finite."""
    import torch

    with torch.inference_mode():
        scores_1V: Tensor = logits_1V.to(device="cpu", dtype=torch.float32)
        check_logit(float(scores_1V.max()))
        for processor in processors:
            scores_1V = processor(ids_1N, scores_1V)
    if float(scores_1V.max()) == -math.inf:
        raise RowError(
            Reason.NOTHING_TO_CHOOSE,
            "every token that the model holds possible is eos or one of stop_token_ids, and the "
            "first min_new_tokens tokens may be none of them; wanted a token that is neither",
        )
    return scores_1V


def _with_token(ids_1N: Tensor, token_id: int) -> Tensor:
    import torch

    return torch.cat([ids_1N, torch.tensor([[token_id]])], dim=-1)
