"""A row's fields to a prompt: text, or messages for the model's chat template.

Promises: the same row gives the same prompt on every machine; a template sees ``row`` and nothing
else, cannot change it, and prints texts, numbers and booleans alone; a field wins over a method of
the same name, so ``row.items`` is the field ``items``. Does not: apply the model's chat template or
count tokens (``sessions``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
from jinja2 import meta

from rdu_batch.errors import RowError, SpecError
from rdu_batch.job.records import Fields, Reason
from rdu_batch.job.template_environment import (
    MAX_ASKED_CHARS,
    RowFields,
    Unprintable,
    make_environment,
    names_of,
    sound,
)

if TYPE_CHECKING:
    from rdu_batch.job.spec import PromptSpec


@dataclass(frozen=True)
class Prompt:
    """What one row asks. Exactly one of the two is set."""

    #: Goes to the tokenizer as it is.
    text: str | None
    #: Goes through the model's chat template first; each has at least ``role`` and ``content``.
    messages: tuple[dict[str, Any], ...] | None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise ValueError("a prompt has either text or messages")


def template_problems(template: str) -> list[str]:
    """What is wrong with a template before it sees a row, one sentence each; [] if nothing is."""
    environment = make_environment()
    if "\r" in template:
        return ['found a carriage return, which Jinja would change; wanted {{ "\\r" }}']
    try:
        tree = environment.parse(template)
        environment.from_string(template)
    except Unprintable as error:
        return [f"found a template that cannot be printed: {error}"]
    except jinja2.TemplateSyntaxError as error:
        where = f"line {error.lineno} of the template" if "\n" in template else "the template"
        mistake = (error.message or "").rstrip(".")
        return [f"found a mistake in {where}: {mistake}; wanted a Jinja template over row"]
    except (RecursionError, SyntaxError, ValueError) as error:
        return [f"found a template that cannot be compiled ({type(error).__name__}); simplify it"]
    names = meta.find_undeclared_variables(tree) - {"row"} - set(environment.globals)
    problems = [
        f"found the name {name}; wanted row; did you mean row.{name}?" for name in sorted(names)
    ]
    if any(True for _ in meta.find_referenced_templates(tree)):
        problems.append("found include, import or extends; wanted a template on its own")
    return problems


class PromptRenderer:
    """Renders the prompts of a job. Compiles the template once."""

    def __init__(self, spec: PromptSpec) -> None:
        """Raises SpecError if the template is wrong; ``load_spec`` finds that with its line."""
        self._spec = spec
        self._template: jinja2.Template | None = None
        if spec.template is not None:
            problems = template_problems(spec.template)
            if problems:
                raise SpecError([f"prompt.template: {problem}" for problem in problems])
            self._template = make_environment().from_string(spec.template)

    def render(self, fields: Fields) -> Prompt:
        """The prompt of one row.

        Raises:
            RowError: missing_field, wrong_type or template_error. Ends the row.
        """
        if self._spec.messages_field is not None:
            messages = _messages_of(fields, self._spec.messages_field)
            return Prompt(None, self._with_system(messages))
        if self._template is not None:
            text = _render(self._template, fields)
        else:
            text = _text_of(fields, self._spec.field or "")
        if self._spec.chat_template:
            return Prompt(None, self._with_system(({"role": "user", "content": text},)))
        return Prompt(text, None)

    def _with_system(self, messages: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        if self._spec.system is None or messages[0]["role"] == "system":
            return messages
        return ({"role": "system", "content": self._spec.system}, *messages)


def _render(template: jinja2.Template, fields: Fields) -> str:
    try:
        text = template.render(row=RowFields(fields.values))
        text.encode()
    except UnicodeEncodeError as error:
        _refuse_template(error, "it makes half of a surrogate pair")
    except jinja2.UndefinedError as error:
        _refuse_template(error, error.message or "", Reason.MISSING_FIELD)
    except Unprintable as error:
        _refuse_template(error, str(error), error.reason)
    except RecursionError as error:
        # Python's wording depends on where the stack ended.
        _refuse_template(error, "a macro or a loop goes too deep")
    except Exception as error:
        # Whatever an expression does with a row's values ends that row and nothing else. Memory and
        # signals pass: they are not Exceptions, or are the worker's business.
        if isinstance(error, MemoryError):
            raise
        _refuse_template(error, f"{type(error).__name__}: {sound(str(error))}")
    return text


def _refuse_template(
    error: Exception, what: str, reason: Reason = Reason.TEMPLATE_ERROR
) -> NoReturn:
    lines = []
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            lines.append(traceback.tb_lineno)
        traceback = traceback.tb_next
    where = f"line {lines[-1]} of the template" if lines else "the template"
    raise RowError(reason, f"{where} cannot render this row: {what}") from None


_TYPE_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    bool: "true or false",
    str: "a string",
    type(None): "null",
}


def _type_name(value: object) -> str:
    return _TYPE_NAMES.get(type(value), "a number")


def _field_of(fields: Fields, name: str, wanted: str) -> Any:
    if name not in fields.values:
        detail = (
            f'the row has no field "{sound(name, MAX_ASKED_CHARS)}"; wanted {wanted} there; it has '
        )
        raise RowError(Reason.MISSING_FIELD, detail + names_of(fields.values))
    return fields.values[name]


def _text_of(fields: Fields, name: str) -> str:
    value = _field_of(fields, name, "a string")
    if not isinstance(value, str):
        reason = Reason.MISSING_FIELD if value is None else Reason.WRONG_TYPE
        raise RowError(reason, f'the field "{sound(name)}" is {_type_name(value)}; wanted a string')
    return value


def _wrong_type(detail: str) -> RowError:
    return RowError(Reason.WRONG_TYPE, detail)


def _messages_of(fields: Fields, name: str) -> tuple[dict[str, Any], ...]:
    wanted = "a list of {role, content} with at least one message"
    value = _field_of(fields, name, wanted)
    place = f'the field "{sound(name)}"'
    if value is None:
        raise RowError(Reason.MISSING_FIELD, f"{place} is null; wanted {wanted}")
    if not isinstance(value, list) or not value:
        found = "empty" if value == [] else _type_name(value)
        raise _wrong_type(f"{place} is {found}; wanted {wanted}")
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            found = _type_name(message)
            raise _wrong_type(f"message {number} of {place} is {found}; wanted {{role, content}}")
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                found = _type_name(message[key]) if key in message else "absent"
                raise _wrong_type(
                    f"{key} of message {number} of {place} is {found}; wanted a string"
                )
    return tuple(value)
