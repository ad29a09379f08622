"""Options of storage drivers in a job file: what they may be, and ``${ENV:NAME}`` in them.

A mapping of a driver's option to its value: text, a number, true or false, or a mapping of such.
A text may hold ``${ENV:NAME}``, the environment variable of that name in the process that opens the
store. Promises: a secret stands in no job file; what is resolved is a new value, never stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rdu_batch.job.secret_words import HARMLESS, has_secret, is_secret_name

_REFERENCE = re.compile(r"\$\{ENV:([A-Za-z_][A-Za-z0-9_]*)\}")
_ADVICE = 'wanted "${ENV:NAME}", the name of an environment variable that holds it'
#: Shorter values of options that do not sound secret are not hidden in messages: they are words.
_MIN_HIDDEN_LETTERS = 8


class VariableUnset(ValueError):
    """An option refers to an environment variable that is not set."""

    def __init__(self, variable: str, option: str) -> None:
        self.variable = variable
        self.option = option
        super().__init__(f"{option} refers to {variable}, which is not set")


def option_problems(options: object, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """What is wrong with storage options, as (dotted path, sentence); no sentence quotes a value.

    Args:
        options: of the job file, raw; what is no mapping has its own error.
        path: where they are, such as ``("storage_options",)``.
    """
    yield from _problems(options, path, is_secret=False)


def _problems(
    value: object, path: tuple[str, ...], *, is_secret: bool
) -> Iterator[tuple[str, str]]:
    place = ".".join(path)
    if isinstance(value, Mapping):
        for name, item in value.items():
            below = (*path, str(name))
            yield from _problems(item, below, is_secret=is_secret or is_secret_name(str(name)))
    elif isinstance(value, str):
        rest = _REFERENCE.sub("", value)
        if "${" in rest:
            yield place, 'found "${" without ENV:NAME}; wanted "${ENV:NAME}"'
        elif has_secret(rest) or (is_secret and rest == value and value not in HARMLESS):
            yield place, f"found a secret itself; {_ADVICE}"
    elif is_secret and isinstance(value, int | float) and not isinstance(value, bool):
        yield place, f"found a secret itself; {_ADVICE}"
    elif len(path) > 1 and value is not None and not isinstance(value, bool | int | float):
        yield place, "found a list; wanted text, a number, true, false or a mapping"


def url_problem(url: str) -> str | None:
    """What is wrong with a URL of a job file: a secret in it. None if nothing is."""
    if not has_secret(url):
        return None
    return (
        "found a URL with a password or a signature in it; wanted a URL without, and the secret in "
        'storage_options as "${ENV:NAME}", or where the driver finds it by itself'
    )


def resolve_options(options: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The options with the environment's values in them.

    Raises:
        VariableUnset: one of the variables is not set.
    """
    return {name: _resolved(value, name, environment) for name, value in options.items()}


def _resolved(value: Any, option: str, environment: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {
            name: _resolved(item, f"{option}.{name}", environment) for name, item in value.items()
        }
    if not isinstance(value, str):
        return value

    def text_of(found: re.Match[str]) -> str:
        if found[1] not in environment:
            raise VariableUnset(found[1], option)
        return environment[found[1]]

    return _REFERENCE.sub(text_of, value)


def secrets_of(options: Mapping[str, Any], environment: Mapping[str, str]) -> set[str]:
    """The values of the environment that the options refer to and that no message may show."""
    return set(_secrets(options, environment, is_secret=False))


def _secrets(
    options: Mapping[str, Any], environment: Mapping[str, str], *, is_secret: bool
) -> Iterator[str]:
    for name, value in options.items():
        hides = is_secret or is_secret_name(name)
        if isinstance(value, Mapping):
            yield from _secrets(value, environment, is_secret=hides)
        elif isinstance(value, str):
            for variable in _REFERENCE.findall(value):
                found = environment.get(variable, "")
                if hides or len(found) >= _MIN_HIDDEN_LETTERS:
                    yield found
