"""What pydantic found wrong with a job file, in a person's words.

Promises: one sentence per mistake, ``what was found; what was wanted``, with the nearest right name
where there is one. Does not: decide what is wrong (``spec``), or where it was written (the caller).
"""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from rdu_batch.job.secret_words import hide_secrets
from rdu_batch.job.spec import JobSpec
from rdu_batch.job.spec_checks import CONTRADICTION, WANTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic_core import ErrorDetails

    from rdu_batch.job.yaml_source import Path


def is_echo(details: ErrorDetails) -> bool:
    """Whether an error only follows from another one that is reported anyway."""
    # A list of one wrong entry counts as empty for pydantic.
    is_short = details["type"] == "too_short" and len(details["input"]) > 0
    return is_short or details["type"] == CONTRADICTION


def sentence(details: ErrorDetails) -> str:
    """What was found and what was wanted."""
    path = tuple(details["loc"])
    kind = details["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing":
        return f"missing; wanted it here: {_about(path)}"
    # Whatever stands there may have been meant as a secret.
    is_hidden = "storage_options" in path
    found = "found something else" if is_hidden else found_text(details["input"])
    wanted = _wanted(path, kind, details.get("ctx", {}))
    hint = ""
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected", "")))
        hint = did_you_mean(str(details["input"]), names)
    return f"{found}; wanted {wanted}{hint}"


_WANTED_TYPES = {
    "string_type": "text; put it in quotes",
    "int_type": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list, such as [a, b]",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "finite_number": "a finite number",
    "string_pattern_mismatch": "1 to 63 lower case letters, digits and hyphens, no hyphen first",
    "string_too_short": "text that is not empty",
    "too_short": "a list with at least one entry",
}
_WANTED_BOUNDS = {
    "greater_than": ("gt", "a number above"),
    "greater_than_equal": ("ge", "a number of at least"),
    "less_than": ("lt", "a number below"),
    "less_than_equal": ("le", "a number of at most"),
}


def _wanted(path: Path, kind: str, context: dict[str, Any]) -> str:
    if kind == WANTED:
        return str(context["text"])
    if kind in _WANTED_TYPES:
        return _WANTED_TYPES[kind]
    if kind in _WANTED_BOUNDS:
        key, words = _WANTED_BOUNDS[kind]
        return f"{words} {context[key]:g}"
    if kind == "literal_error":
        return str(context["expected"]).replace("'", '"')
    return _about(path)


def _unknown_key(path: Path) -> str:
    section = _model_at(path[:-1])
    known = list(section.model_fields) if section is not None else []
    key = str(path[-1])
    hint = did_you_mean(key, known)
    if not hint:
        elsewhere = {_leaf: _path for _path, _leaf in _leaves()}
        near = difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.75)
        hint = f"; did you mean {elsewhere[near[0]]}?" if near else ""
    return f"found an unknown key; wanted one of {', '.join(known)}{hint}"


def _leaves() -> Iterator[tuple[str, str]]:
    """Every leaf below the top level, as (path, key)."""
    for name in JobSpec.model_fields:
        section = _model_at((name,))
        for key in section.model_fields if section is not None else ():
            yield f"{name}.{key}", key


def _model_at(path: Path) -> type[BaseModel] | None:
    """The class of the section at this path; None where there is none."""
    model: type[BaseModel] = JobSpec
    for key in path:
        info = model.model_fields.get(str(key))
        section = info.annotation if info is not None else None
        if not isinstance(section, type) or not issubclass(section, BaseModel):
            return None
        model = section
    return model


def _about(path: Path) -> str:
    """What a leaf or a section is for, in one line."""
    parent = _model_at(path[:-1])
    info = parent.model_fields.get(str(path[-1])) if parent is not None and path else None
    if info is None:
        return "another value"
    text = info.description
    if text is None and isinstance(info.annotation, type):
        text = info.annotation.__doc__
    return " ".join((text or "another value").split()).split(". ")[0].rstrip(".")


def did_you_mean(found: str, names: Sequence[str]) -> str:
    """The end of a sentence that names the nearest of ``names``; empty if none is near."""
    near = difflib.get_close_matches(found, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def found_text(value: Any) -> str:
    """``found`` and what a value is, without all of it."""
    if value is None:
        return "found nothing"
    if isinstance(value, bool):
        return f"found {str(value).lower()}"
    if isinstance(value, str):
        return f"found {quoted(value)}"
    if isinstance(value, dict):
        return "found a mapping"
    if isinstance(value, list):
        return f"found a list of {len(value)}"
    return f"found {_cut(str(value))}"


def quoted(text: str) -> str:
    """A text in quotes, cut if it is long, and without secrets."""
    shown = json.dumps(hide_secrets(text), ensure_ascii=False)
    return shown if len(shown) <= 80 else f'{shown[:76]}..."'


def _cut(number: str) -> str:
    return number if len(number) <= 80 else f"{number[:77]}..."
