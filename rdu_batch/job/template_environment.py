"""The Jinja of a job's own template: what it may print, and how it says what a row lacks.

Promises: what is printed is a text, a number or a boolean; null, a list or an object is refused
where it is printed, joined by ``~`` or given to a filter that makes a text of anything, because
Python's own words for it (``None``, ``['a']``) are no prompt. Does not: touch the chat template of
a model, which has an environment of its own, or know what a dead letter is.
"""

from __future__ import annotations

import functools
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rdu_batch.job.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jinja2.compiler import Frame

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_MAX_QUOTED_CHARS: Final = 160
#: Of names of fields in a detail, which has an end.
_MAX_NAMES: Final = 5
_MAX_NAME_CHARS: Final = 20
MAX_ASKED_CHARS: Final = 40
_ARRAYS: Final = (list, tuple, range)
_SCALARS: Final = {type(None): "null", str: "a text", bool: "true or false"}
#: Filters that make a text of whatever they are given.
_TEXT_FILTERS: Final = (
    *("capitalize", "center", "e", "escape", "forceescape", "lower", "replace", "striptags"),
    *("title", "trim", "upper"),
)
#: The name under which a compiled template asks what may be printed.
_CHECK: Final = "_printable"


class Unprintable(Exception):
    """A template prints something that is no text of a prompt."""

    def __init__(self, what: str, reason: Reason = Reason.TEMPLATE_ERROR) -> None:
        self.reason = reason
        super().__init__(what)


class RowFields(dict[str, Any]):
    """The fields of a row as its template sees them; told from an object within the row."""


def sound(message: str, max_chars: int = _MAX_QUOTED_CHARS) -> str:
    """A quoted text without addresses in memory, cut where it is long."""
    message = _ADDRESS.sub("", message)
    return message if len(message) <= max_chars else message[:max_chars] + "..."


def names_of(names: Iterable[str]) -> str:
    """The first few names of fields, quoted; ``no fields`` where there are none."""
    quoted = [f'"{sound(name, _MAX_NAME_CHARS)}"' for name in names]
    if not quoted:
        return "no fields"
    more = len(quoted) - _MAX_NAMES
    return ", ".join(quoted[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def make_environment() -> jinja2.Environment:
    """A new environment for templates of jobs."""
    environment = _Environment(
        undefined=_Lacking,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=_printable,
    )
    # Both draw random numbers: a resume would not repeat the prompt.
    del environment.globals["lipsum"]
    del environment.filters["random"]
    for name in _TEXT_FILTERS:
        environment.filters[name] = _of_printable(environment.filters[name])
    environment.filters[_CHECK] = _printable
    return environment


def _printable(value: Any, name: str = "what it prints") -> Any:
    """The value itself if it may become text of a prompt; Jinja's ``finalize``."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Unprintable("it prints a number that is too large for a float")
    if isinstance(value, (str, int, float, Decimal, jinja2.Undefined)):
        return value
    if value is None:
        how = "write | default('', true) for nothing, or | tojson for null"
        raise Unprintable(f"{name} is null; {how}", Reason.MISSING_FIELD)
    if isinstance(value, _ARRAYS):
        how = "write | join(', ') for its elements, or | tojson for its JSON"
        raise Unprintable(f"{name} is a list; {how}", Reason.WRONG_TYPE)
    if isinstance(value, dict):
        how = "name one of its fields, or write | tojson for its JSON"
        raise Unprintable(f"{name} is an object; {how}", Reason.WRONG_TYPE)
    kind = type(value).__name__
    raise Unprintable(f"it prints a {kind}, which has no text of its own; add |list and |join")


def _of_printable(make_text: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is given only what may be printed."""
    # Jinja marks a filter that wants its environment or context first; ``wraps`` keeps the mark.
    position = int(hasattr(make_text, "jinja_pass_arg"))

    @functools.wraps(make_text)
    def checked(*arguments: Any, **options: Any) -> Any:
        if len(arguments) > position:
            _printable(arguments[position])
        return make_text(*arguments, **options)

    return checked


class _Lacking(jinja2.StrictUndefined):
    """What a row does not have, told in the words of rows."""

    @property
    def _undefined_message(self) -> str:
        holder: Any = self._undefined_obj
        name: Any = self._undefined_name
        if self._undefined_hint or isinstance(holder, jinja2.Undefined):
            return sound(super()._undefined_message)
        if isinstance(holder, _ARRAYS) and isinstance(name, int):
            return f"a list of {len(holder)} has no element {name}"
        field = f'field "{sound(str(name), MAX_ASKED_CHARS)}"'
        if isinstance(holder, dict):
            place = "the row" if isinstance(holder, RowFields) else "an object of the row"
            return f"{place} has no {field}; it has {names_of(holder)}"
        if isinstance(holder, (type(None), str, bool, int, float, Decimal)):
            return f"{_SCALARS.get(type(holder), 'a number')} has no {field}"
        return sound(super()._undefined_message)


def _checked(printed: nodes.Expr) -> nodes.Expr:
    """An expression that is refused by its name where it may not be printed."""
    if isinstance(printed, nodes.TemplateData):
        return printed
    name = _name_of(printed)
    arguments: list[nodes.Expr] = []
    if name is not None:
        arguments.append(nodes.Const(sound(name, MAX_ASKED_CHARS), lineno=printed.lineno))
    return nodes.Filter(printed, _CHECK, arguments, [], None, None, lineno=printed.lineno)


def _name_of(expression: nodes.Expr) -> str | None:
    """A field or a variable as the template writes it; None for any other expression."""
    if isinstance(expression, nodes.Name):
        return expression.name
    if isinstance(expression, nodes.Getattr):
        holder = _name_of(expression.node)
        return None if holder is None else f"{holder}.{expression.attr}"
    if isinstance(expression, nodes.Getitem) and isinstance(expression.arg, nodes.Const):
        holder = _name_of(expression.node)
        return None if holder is None else f"{holder}[{expression.arg.value!r}]"
    return None


class _Generator(CodeGenerator):
    # The name is Jinja's.
    def visit_Template(  # noqa: N802
        self, node: nodes.Template, frame: Frame | None = None
    ) -> None:
        """Check what is printed by its name, and what ``a ~ b`` joins, past ``finalize``."""
        joined, output = node.find_all(nodes.Concat), node.find_all(nodes.Output)
        found: list[nodes.Concat | nodes.Output] = [*joined, *output]
        for printed in found:
            printed.nodes = [_checked(each) for each in printed.nodes]
        node.set_environment(self.environment)
        super().visit_Template(node, frame)


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _Generator

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)
