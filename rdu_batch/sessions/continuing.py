"""Prompts continued one after the other in this process, as the tutorial's ``run`` does.

Promises: the text of a prompt and its continuation, special tokens kept, by the common decode loop;
a prompt that leaves no room is refused before anything is generated, and nothing is cropped. Does
not: read prompts, print, or keep anything; a job does all that (``runner``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdu_batch.errors import InputError, RowError
from rdu_batch.job.prompt import Prompt
from rdu_batch.job.spec import GenerationSpec
from rdu_batch.sessions.decode_loop import RowState
from rdu_batch.sessions.registry import open_session
from rdu_batch.sessions.tokenizer import ArtifactTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.door import Session

#: Prompts named in one error.
_NUM_LISTED: Final = 8


def continued(
    local: LocalArtifact,
    prompts: Sequence[tuple[str, str]],
    *,
    kind: str,
    max_new_tokens: int,
    threads: int,
    on_progress: Callable[[str], None] = lambda _line: None,
) -> Iterator[str]:
    """Yield each prompt with its greedy continuation, in order, as soon as it is there.

    Args:
        local: the artifact.
        prompts: each with its place, for messages.
        kind: of the session.
        max_new_tokens: most tokens to generate for a prompt; fewer where the session is full.
        threads: inside the session.
        on_progress: called with one line a prompt.

    Raises:
        InputError: prompts that cannot be continued, with their places. Ends the command (exit 4).
        ArtifactError: the artifact cannot be opened here (exit 8).
        SessionBroken: the session failed (exit 1).
    """
    tokenizer = ArtifactTokenizer(local)
    session = open_session(kind, local, threads=threads)
    settings = GenerationSpec(max_new_tokens=max_new_tokens)
    encoded = _encoded(tokenizer, session, prompts, settings)
    for number, ((place, _), prompt_ids) in enumerate(zip(prompts, encoded, strict=True), start=1):
        row = RowState(session, tokenizer, prompt_ids, settings, row_seed=0)
        try:
            while row.advance() is None:
                pass
        except RowError as error:
            raise InputError(f"{place}: {error}") from error
        generation = row.result()
        on_progress(
            f"{number} of {len(prompts)}: {generation.num_prompt_tokens} tokens, "
            f"{generation.num_generated_tokens} generated, {generation.finish_reason}"
        )
        yield tokenizer.decode_whole([*prompt_ids, *generation.token_ids])
    session.close()


def _encoded(
    tokenizer: ArtifactTokenizer,
    session: Session,
    prompts: Sequence[tuple[str, str]],
    settings: GenerationSpec,
) -> list[list[int]]:
    """Token ids of all prompts, if the session can take each of them."""
    encoded, refused = [], []
    for place, text in prompts:
        try:
            prompt_ids = tokenizer.encode(Prompt(text=text, messages=None), date=None)
            RowState(session, tokenizer, prompt_ids, settings, row_seed=0)
        except RowError as error:
            refused.append(f"{place}: {error}")
        else:
            encoded.append(prompt_ids)
    if refused:
        if len(refused) > _NUM_LISTED:
            refused[_NUM_LISTED:] = [f"and {len(refused) - _NUM_LISTED} more"]
        raise InputError("\n".join(["nothing was generated:", *refused]))
    return encoded
