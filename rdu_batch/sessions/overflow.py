"""Prompts that leave too little room: cut to what the session holds, where the job asks for that.

A prompt is cut to ``max_seq_length - max_new_tokens`` tokens, so that the prediction has all the
room that it may take. Where that leaves nothing of the row's own text, it is cut to
``max_seq_length - 1``: room for one token. A prompt that has no more tokens is left as it is.

A text loses tokens at its left or right end; special tokens that the tokenizer puts around it stay.
A chat loses characters of its last user message and is rendered again, so that its template is
whole: as few as make it fit, by bisection, which takes longer prompts to have more tokens.
Promises: at least one token of a text, one character of a message, is kept; nothing but the prompt,
the tokenizer and the limits decides. Does not: normalize text, or know why a row is too long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from rdu_batch.errors import RowError
from rdu_batch.job.prompt import Prompt
from rdu_batch.job.records import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

Overflow = Literal["error", "truncate_left", "truncate_right"]
_CUT_ROLE: Final = "user"


class PromptEncoder(Protocol):
    """What cutting needs of a tokenizer."""

    def encode(self, prompt: Prompt, *, date: str | None) -> list[int]:
        """As ``PromptTokenizer.encode``."""

    def encode_bare(self, text: str) -> list[int]:
        """As ``PromptTokenizer.encode_bare``."""


class FittedPrompt(NamedTuple):
    """Token ids of a prompt, and how many it had more before it was cut."""

    ids: list[int]
    num_cut_tokens: int


def fit_prompt(
    tokenizer: PromptEncoder,
    prompt: Prompt,
    ids: list[int],
    overflow: Overflow,
    *,
    date: str | None,
    max_seq_length: int,
    max_new_tokens: int,
) -> FittedPrompt:
    """Cut a prompt as the job asks; see the module for how far.

    Args:
        tokenizer: what ``ids`` come from.
        prompt: what a row was rendered to.
        ids: of the whole prompt.
        overflow: the job's; with ``error`` nothing is cut, and the decode loop refuses the row.
        date: what a chat template sees as today.
        max_seq_length: of the session.
        max_new_tokens: of the row.

    Raises:
        RowError: ``prompt_too_long``: what may not be cut is too long by itself; or what the chat
            template raises. Ends the row.
    """
    roomy = max_seq_length - max_new_tokens
    if overflow == "error" or len(ids) <= roomy:
        return FittedPrompt(ids, 0)
    cut = _cut_text if prompt.messages is None else _cut_chat
    for limit in (roomy, max_seq_length - 1):
        if len(ids) <= limit:
            return FittedPrompt(ids, 0)
        fitted = cut(tokenizer, prompt, ids, overflow, date, limit) if limit > 0 else None
        if fitted is not None:
            return FittedPrompt(fitted, len(ids) - len(fitted))
    what = "special tokens" if prompt.messages is None else "the chat without its last user message"
    raise RowError(
        Reason.PROMPT_TOO_LONG,
        f"the prompt has {len(ids)} tokens, wanted at most {max_seq_length - 1}; prompt.overflow "
        f"cannot cut it to that: {what} leave no room for any of the row's own text",
    )


def _cut_text(
    tokenizer: PromptEncoder,
    prompt: Prompt,
    ids: list[int],
    overflow: Overflow,
    _date: str | None,
    limit: int,
) -> list[int] | None:
    """The ids with as many of the text's own left as fit; None if none would be."""
    bare = tokenizer.encode_bare(prompt.text or "")
    start = _place_of(bare, ids)
    before, after = ids[:start], ids[start + len(bare) :]
    num_kept = limit - len(before) - len(after)
    if num_kept < 1:
        return None
    kept = bare[-num_kept:] if overflow == "truncate_left" else bare[:num_kept]
    return [*before, *kept, *after]


def _place_of(bare: Sequence[int], ids: Sequence[int]) -> int:
    """Where the text's own tokens begin among all of them."""
    num_added = len(ids) - len(bare)
    for start in range(num_added, 0, -1):
        if list(ids[start : start + len(bare)]) == list(bare):
            return start
    return 0


def _cut_chat(
    tokenizer: PromptEncoder,
    prompt: Prompt,
    _ids: list[int],
    overflow: Overflow,
    date: str | None,
    limit: int,
) -> list[int] | None:
    """The chat with as much of its last user message as fits; None if not a character does."""
    messages = prompt.messages or ()
    users = [index for index, one in enumerate(messages) if one["role"] == _CUT_ROLE]
    if not users:
        return None
    index = users[-1]
    content = messages[index]["content"]

    def encoded(num_chars: int) -> list[int]:
        kept = content[-num_chars:] if overflow == "truncate_left" else content[:num_chars]
        shorter = {**messages[index], "content": kept}
        cut = (*messages[:index], shorter, *messages[index + 1 :])
        return tokenizer.encode(Prompt(None, cut), date=date)

    # The whole content is too long. Invariant: `fitting` fits, `too_long` characters do not.
    fitting: list[int] | None = None
    least, too_long = 0, len(content)
    while too_long - least > 1:
        middle = (least + too_long) // 2
        found = encoded(middle)
        if len(found) <= limit:
            least, fitting = middle, found
        else:
            too_long = middle
    return fitting
