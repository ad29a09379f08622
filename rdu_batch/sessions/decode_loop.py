"""One loop for every kind of session: from prompt ids to a finished generation.

Promises: a row's tokens depend on its prompt, the generation settings and its own seed; the state
of a row is one object, advanced one token at a time, so several rows can be in flight one day.
Does not: render or tokenize prompts, time rows out, or keep anything from one row to the next.

How a generation ends; where several hold for the same token, the first of these counts:

    stop           the token is one of stop_token_ids, and not in the text; or the text holds a stop
                   string, and is cut before the first one
    eos            the token ends the text; it counts as a generated token and is not in the text
    length         max_new_tokens tokens are generated
    context_full   prompt and generated tokens together fill the session's max_seq_length

The first min_new_tokens tokens end a row neither by eos nor by stop: tokens that would are not
chosen among them, and a stop string counts only if it ends after their text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from rdu_batch.errors import RowError
from rdu_batch.job.records import Reason
from rdu_batch.sessions.choosing import TokenChooser
from rdu_batch.sessions.sampling import row_seed_of
from rdu_batch.sessions.stopping import StopFinder, text_of_cut_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdu_batch.job.spec import GenerationSpec
    from rdu_batch.sessions.door import Session, Step
    from rdu_batch.sessions.tokenizer import PromptTokenizer

__all__ = [
    "FinishReason",
    "Generation",
    "RowState",
    "check_prompt",
    "generate",
    "row_seed_of",
]


class FinishReason(StrEnum):
    """Why a generation ended; see the module for which one counts when several hold."""

    STOP = "stop"
    EOS = "eos"
    LENGTH = "length"
    CONTEXT_FULL = "context_full"


class Generation(NamedTuple):
    """What a row's prompt led to. A tuple, as one is made for each row."""

    #: Every generated token; a final eos, a stop token and those of a stop string are included.
    token_ids: tuple[int, ...]
    #: Their text without special tokens, without a stop token, without a stop string and what
    #: follows it, and, where a limit or a stop token cut it, without half a character at its end.
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    #: ``len(token_ids)``: what was computed, so eos and stop strings count.
    num_generated_tokens: int
    #: The model's own natural log-probability of each of ``token_ids``; None unless asked for.
    logprobs: tuple[float, ...] | None = None


class RowState:
    """One row in flight: call ``advance`` until it gives a finish reason, then ``result``."""

    def __init__(
        self,
        session: Session,
        tokenizer: PromptTokenizer,
        prompt_ids: Sequence[int],
        generation: GenerationSpec,
        *,
        row_seed: int,
    ) -> None:
        """Check the prompt against the session; computes nothing yet.

        Raises:
            RowError: the prompt has no tokens (``empty_prompt``), leaves no room for one token
                (``prompt_too_long``), or holds an id the model does not have
                (``template_error``). Ends the row.
        """
        check_prompt(prompt_ids, session.info.max_seq_length, session.info.vocab_size)
        self._session = session
        self._tokenizer = tokenizer
        self._prompt_ids = tuple(prompt_ids)
        self._max_tokens = min(
            generation.max_new_tokens, session.info.max_seq_length - len(prompt_ids)
        )
        self._max_new_tokens = generation.max_new_tokens
        self._stop_token_ids, ending_ids = _ending_ids(
            tokenizer.eos_token_ids, generation.stop_token_ids, session.info.vocab_size
        )
        self._chooser = TokenChooser(
            generation, prompt_ids, ending_ids=ending_ids, row_seed=row_seed
        )
        self._stop = StopFinder(
            generation.stop, tokenizer.decode, min_new_tokens=generation.min_new_tokens
        )
        self._token_ids: list[int] = []
        self._finish_reason: FinishReason | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        """None while the row is in flight."""
        return self._finish_reason

    def advance(self) -> FinishReason | None:
        """Generate one token: one session call. Gives the finish reason if it was the last one.

        Raises:
            RowError: ``nothing_to_choose``: min_new_tokens forbids every token. Ends the row.
            SessionBroken: the session failed. Ends the worker.
            ValueError: the row is finished already, or another row used the session in between.
        """
        if self._finish_reason is not None:
            raise ValueError(f"the row has ended by {self._finish_reason}; it cannot advance")
        step = self._call_session()
        self._token_ids.append(self._chooser.choose(step))
        self._finish_reason = self._judge()
        return self._finish_reason

    def result(self) -> Generation:
        """The finished generation.

        Raises:
            ValueError: the row is still in flight.
        """
        reason = self._finish_reason
        if reason is None:
            raise ValueError("the row is in flight; advance it until it gives a finish reason")
        decode = self._tokenizer.decode
        if reason is FinishReason.EOS:
            text = decode(self._token_ids[:-1])
        elif reason is not FinishReason.STOP:
            text = text_of_cut_tokens(self._token_ids, decode)
        elif self._token_ids[-1] in self._stop_token_ids:
            text = text_of_cut_tokens(self._token_ids[:-1], decode)
        else:
            text = decode(self._token_ids)
        before_stop = self._stop.cut(text, self._token_ids)
        if before_stop is not None:
            text, reason = before_stop, FinishReason.STOP
        return Generation(
            token_ids=tuple(self._token_ids),
            text=text,
            finish_reason=reason,
            num_prompt_tokens=len(self._prompt_ids),
            num_generated_tokens=len(self._token_ids),
            logprobs=self._chooser.logprobs,
        )

    def _call_session(self) -> Step:
        want_logits = self._chooser.wants_logits
        if not self._token_ids:
            return self._session.prefill(self._prompt_ids, want_logits=want_logits)
        position = len(self._prompt_ids) + len(self._token_ids) - 1
        return self._session.decode(self._token_ids[-1], position, want_logits=want_logits)

    def _judge(self) -> FinishReason | None:
        if self._token_ids[-1] in self._stop_token_ids:
            return FinishReason.STOP
        if self._token_ids[-1] in self._tokenizer.eos_token_ids:
            return FinishReason.EOS
        if self._stop.ends(self._token_ids):
            return FinishReason.STOP
        if len(self._token_ids) < self._max_tokens:
            return None
        if len(self._token_ids) == self._max_new_tokens:
            return FinishReason.LENGTH
        return FinishReason.CONTEXT_FULL


def generate(
    session: Session,
    tokenizer: PromptTokenizer,
    prompt_ids: Sequence[int],
    generation: GenerationSpec,
    *,
    row_seed: int,
    on_first_token: Callable[[], None] = lambda: None,
) -> Generation:
    """Generate for one row from start to end.

    Args:
        session: any open session; the row before is forgotten.
        tokenizer: the one the prompt was encoded with.
        prompt_ids: token ids of the prompt, 1 to max_seq_length - 1 of them.
        generation: the row's settings; one sample is made, whatever its ``num_samples``.
        row_seed: from ``row_seed_of``; only sampling looks at it.
        on_first_token: called once, when prefill is over and the first token is known.

    Raises:
        RowError: as ``RowState``. Ends the row.
        SessionBroken: the session failed. Ends the worker.
    """
    row = RowState(session, tokenizer, prompt_ids, generation, row_seed=row_seed)
    finish_reason = row.advance()
    on_first_token()
    while finish_reason is None:
        finish_reason = row.advance()
    return row.result()


@functools.lru_cache(maxsize=64)
def _ending_ids(
    eos_token_ids: frozenset[int], stop_token_ids: tuple[int, ...], vocab_size: int
) -> tuple[frozenset[int], tuple[int, ...]]:
    """The stop tokens, and the tokens of the vocabulary that end a row. The same for most rows."""
    ending_ids = sorted(eos_token_ids.union(stop_token_ids))
    return frozenset(stop_token_ids), tuple(one for one in ending_ids if one < vocab_size)


def check_prompt(prompt_ids: Sequence[int], max_seq_length: int, vocab_size: int) -> None:
    """Check a prompt against the limits of a session.

    Raises:
        RowError: see ``RowState``. Ends the row.
    """
    if not prompt_ids:
        raise RowError(
            Reason.EMPTY_PROMPT,
            "the prompt has no tokens, and the tokenizer has no BOS token to begin with; wanted a "
            "prompt that is not empty",
        )
    if len(prompt_ids) >= max_seq_length:
        raise RowError(
            Reason.PROMPT_TOO_LONG,
            f"the prompt has {len(prompt_ids)} tokens, wanted at most {max_seq_length - 1}: the "
            f"session holds {max_seq_length} and one is kept for the first generated token",
        )
    if max(prompt_ids) >= vocab_size:
        raise RowError(
            Reason.TEMPLATE_ERROR,
            f"the prompt holds token id {max(prompt_ids)}, but the model has {vocab_size}: "
            "the tokenizer has a token of its own for some of this text",
        )
