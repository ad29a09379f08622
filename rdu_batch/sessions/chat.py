"""Messages to text, through the artifact's own chat template, without a clock.

Promises: the text is what transformers renders with a generation prompt, except that "today" is
the job's date. A template that refuses a row's messages ends that row; one that cannot be used at
all is an ArtifactError when it is opened.
Does not: tokenize (``tokenizer.py``).
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.errors import ArtifactError, RowError
from rdu_batch.job.records import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How Llama's templates write ``date_string``, the variable many others took over.
DATE_STRING_FORMAT: Final = "%d %b %Y"
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{4,}")
_LONGEST_DETAIL: Final = 500
_PROBE: Final = "{{ strftime_now('%Y-%m-%d') }}"


class ChatTemplate:
    """The chat template of a tokenizer, with its clock taken out."""

    def __init__(self, tokenizer: Any, *, url: str) -> None:
        """Compile the template of ``tokenizer``; ``url`` is the artifact's, for messages.

        Raises:
            ArtifactError: there is none, or it is no template. Ends the job (exit 8).
        """
        import jinja2

        self._tokenizer = tokenizer
        if tokenizer.chat_template is None:
            raise ArtifactError(
                f"{url}: its tokenizer has no chat template, but the job's prompts are chat "
                "messages (prompt.chat_template or prompt.messages_field); use an instruct model's "
                "artifact, or a text prompt"
            )
        try:
            self._template: str = tokenizer.get_chat_template()
            _environment_of(self._template)
        except (jinja2.TemplateError, ValueError) as error:
            raise ArtifactError(
                f"{url}: its chat template cannot be used: {error}; compile the model again with a "
                "tokenizer whose chat template is correct"
            ) from error
        if "strftime_now" in self._template:
            _check_that_the_clock_can_be_taken_out(tokenizer)

    def render(self, messages: Sequence[dict[str, Any]], *, date: str | None) -> str:
        """The text of a chat up to where the assistant's turn begins.

        ``date`` (ISO) is today for the template: ``strftime_now`` gives midnight of that day, and
        ``date_string`` is set.

        Raises:
            RowError: ``template_error``: the template refused, failed, or asked for a date that the
                job does not give. Ends the row.
        """
        import jinja2

        for message in messages:
            if not isinstance(message, dict):
                raise RowError(
                    Reason.TEMPLATE_ERROR,
                    f"a chat message is a {type(message).__name__}, wanted an object with role and "
                    "content",
                )
        today = None if date is None else midnight_of(date)
        # transformers turns callables among a template's variables into text, so the function is
        # replaced where templates find it: among the globals of the compiled template.
        _environment_of(self._template).globals["strftime_now"] = Today(today)
        variables = {} if today is None else {"date_string": today.strftime(DATE_STRING_FORMAT)}
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=False, **variables
            )
        except (RowError, MemoryError):
            raise
        except jinja2.TemplateError as error:
            raise template_error(str(error)) from error
        except RecursionError as error:
            raise template_error("it recurses too deeply") from error
        except Exception as error:
            # A template is a program over the row's own values: any exception is about this row.
            raise template_error(f"{type(error).__name__}: {error}") from error
        return str(text)


class Today:
    """What a template calls as ``strftime_now``."""

    def __init__(self, today: dt.datetime | None) -> None:
        """``today`` is None where the job gives no date."""
        self._today = today

    def __call__(self, format: str) -> str:  # noqa: A002 - as transformers names it
        """The job's date in a format of ``strftime``; a RowError where the job gives none."""
        if self._today is None:
            raise RowError(
                Reason.TEMPLATE_ERROR,
                "the chat template asks for today's date; set prompt.date (such as 2026-01-31), so "
                "that a resume on another day gives the same prompts",
            )
        return self._today.strftime(format)


def midnight_of(date: str) -> dt.datetime:
    """The first moment of an ISO date."""
    return dt.datetime.combine(dt.date.fromisoformat(date), dt.time())


def _check_that_the_clock_can_be_taken_out(tokenizer: Any) -> None:
    """Prove that templates ask us for the date, in whatever version of transformers this is."""
    _environment_of(_PROBE).globals["strftime_now"] = Today(midnight_of("1999-12-31"))
    messages = [{"role": "user", "content": ""}]
    found = tokenizer.apply_chat_template(messages, chat_template=_PROBE, tokenize=False)
    if found != "1999-12-31":
        raise ArtifactError(
            "the chat template asks for today's date, and this version of transformers does not "
            "let it be fixed; install the version named in pyproject.toml"
        )


def _environment_of(template: str) -> Any:
    from transformers.utils import chat_template_utils

    # Private, but the only way to the globals; _check_that_the_clock_can_be_taken_out guards it.
    return chat_template_utils._compile_jinja_template(template).environment  # noqa: SLF001


def template_error(cause: str) -> RowError:
    """The dead letter's error of a chat template that failed, without addresses of memory."""
    cause = _ADDRESS.sub("0x...", cause)[:_LONGEST_DETAIL]
    return RowError(
        Reason.TEMPLATE_ERROR, f"the chat template cannot render these messages: {cause}"
    )
