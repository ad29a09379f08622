"""One row to its one outcome: parse, render, tokenize, generate, and the line that tells of it.

Promises: a row that cannot be predicted becomes its dead letter; what else goes wrong is raised
with the row's ordinal. Does not: read rows, or make outcomes durable.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from rdu_batch.errors import RduBatchError, RowError, SessionBroken
from rdu_batch.job.overrides import generation_of
from rdu_batch.job.prompt import PromptRenderer
from rdu_batch.job.records import (
    Fields,
    Reason,
    Row,
    Sample,
    dead_line,
    parse_row,
    prediction_line,
)
from rdu_batch.job.row_digest import NO_ROW_DIGEST, row_digest_of
from rdu_batch.job.spec import GenerationSpec, JobSpec
from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.time_spent import TaskClock
from rdu_batch.sessions.decode_loop import generate, row_seed_of
from rdu_batch.sessions.overflow import fit_prompt

if TYPE_CHECKING:
    from rdu_batch.sessions.decode_loop import Generation
    from rdu_batch.sessions.door import Session
    from rdu_batch.sessions.tokenizer import PromptTokenizer

#: Details of given-up rows; the same wherever and whenever that happens.
GIVEN_UP = {
    str(Reason.SESSION_KILLED): "the session process died each time it ran this row alone",
    str(Reason.ROW_TIMEOUT): "the row took longer than limits.row_timeout_s each time it ran alone",
}


def give_up(row: Row, reason: str) -> Outcome:
    """The dead letter of a row that killed its session each time it ran alone."""
    # Not parsed, so without its id: parsing may be what kills the session.
    line = dead_line(row, reason=reason, detail=GIVEN_UP[reason], id_text=None)
    return Outcome(False, reason, line)


class RowRunner:
    """Runs rows of one job on one open session."""

    def __init__(self, spec: JobSpec, session: Session, tokenizer: PromptTokenizer) -> None:
        """``session`` and ``tokenizer`` are those of the job's artifact."""
        self._spec = spec
        self._session = session
        self._tokenizer = tokenizer
        self._renderer = PromptRenderer(spec.prompt)
        self._overflow = spec.prompt.overflow

    def run(self, row: Row, clock: TaskClock) -> Outcome:
        """The one outcome of a row; ``clock`` is told where its time goes.

        Raises:
            SessionBroken: with the row's ordinal. Ends the worker; the row is run again, alone.
            RduBatchError: of another class: ends the job.
        """
        try:
            return self._outcome_of(row, clock)
        except SessionBroken as error:
            raise SessionBroken(str(error), row.ordinal) from error
        except RduBatchError:
            raise
        except Exception as error:
            # Anything else (no memory, a failing library) is unknown: the session may be in any
            # state, and this row may be why.
            raise SessionBroken(traceback.format_exc().strip(), row.ordinal) from error

    def _outcome_of(self, row: Row, clock: TaskClock) -> Outcome:
        """A RowError becomes the row's dead letter."""
        inputs = self._spec.input
        fields: Fields | None = None
        try:
            fields = parse_row(row)
            settings = generation_of(fields, self._spec.generation)
            generations, num_cut_tokens = self._generate(row, fields, settings, clock)
        except RowError as error:
            id_field = inputs.id_field
            id_text = fields.texts.get(id_field) if fields and id_field is not None else None
            line = dead_line(row, reason=error.reason, detail=error.detail, id_text=id_text)
            return Outcome(False, str(error.reason), line)
        num_prompt_tokens = generations[0].num_prompt_tokens
        line = prediction_line(
            row,
            fields,
            id_field=inputs.id_field,
            carry=inputs.carry,
            num_prompt_tokens=num_prompt_tokens,
            samples=[
                Sample(one.text, str(one.finish_reason), one.num_generated_tokens, one.logprobs)
                for one in generations
            ],
            num_cut_tokens=num_cut_tokens,
        )
        return Outcome(
            True,
            ",".join(one.finish_reason for one in generations),
            line,
            num_prompt_tokens,
            sum(one.num_generated_tokens for one in generations),
            # What is sampled depends on where the row stands.
            NO_ROW_DIGEST if settings.temperature > 0 else row_digest_of(row),
        )

    def _generate(
        self, row: Row, fields: Fields, settings: GenerationSpec, clock: TaskClock
    ) -> tuple[list[Generation], int | None]:
        """Every sample of a row, in order, and what its prompt lost where the job cuts prompts.

        Raises RowError: all of them or none.
        """
        prompt = self._renderer.render(fields)
        prompt_ids = self._tokenizer.encode(prompt, date=self._spec.prompt.date)
        num_cut_tokens = None
        if self._overflow != "error":
            prompt_ids, num_cut_tokens = fit_prompt(
                self._tokenizer,
                prompt,
                prompt_ids,
                self._overflow,
                date=self._spec.prompt.date,
                max_seq_length=self._session.info.max_seq_length,
                max_new_tokens=settings.max_new_tokens,
            )
        clock.has_read()
        generations = []
        for sample in range(settings.num_samples):
            generation = generate(
                self._session,
                self._tokenizer,
                prompt_ids,
                settings,
                row_seed=_seed_of(row, settings, sample),
                on_first_token=clock.has_prefilled,
            )
            clock.has_decoded()
            generations.append(generation)
        return generations, num_cut_tokens


def _seed_of(row: Row, settings: GenerationSpec, sample: int) -> int:
    # A greedy row has no use for one.
    is_sampled = settings.temperature > 0
    return row_seed_of(settings.seed, row.path, row.line, sample) if is_sampled else 0
