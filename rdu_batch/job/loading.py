"""The text of a job file, plus what the command line changes, to a ``JobSpec``.

Promises: every mistake of a file and of the options is reported at once, each as
``file:line: path: what was found; what was wanted``, with the nearest right name where there is
one; ``--set`` and ``--limit`` pass through the same checks as the file. Does not: read files.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

from rdu_batch.errors import SpecError
from rdu_batch.job.prompt import template_problems
from rdu_batch.job.secret_words import HIDDEN, hide_secrets
from rdu_batch.job.spec import JobSpec
from rdu_batch.job.spec_checks import contradictions, is_iso_date
from rdu_batch.job.spec_problems import did_you_mean, found_text, is_echo, quoted, sentence
from rdu_batch.job.yaml_source import Path, Place, Problem, Source, path_text, read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]*)\}")
#: Leaves in which ``{date}`` and ``{yesterday}``, the day before it, are filled.
DATED: tuple[Path, ...] = (
    ("input", "urls"),
    ("input", "since"),
    ("output", "url"),
    ("session", "artifact"),
    ("prompt", "date"),
)


def load_spec(
    text: str,
    *,
    source: str,
    overrides: Sequence[str] = (),
    date: str | None = None,
    limit: int | None = None,
) -> JobSpec:
    """Read a job file.

    Args:
        text: the file's YAML.
        source: its name in messages.
        overrides: ``a.b=VALUE`` as given to ``--set``, VALUE in YAML, or a text that begins with
            ``{{``; a later one wins.
        date: fills ``{date}``, such as ``2026-11-22``.
        limit: replaces ``input.limit``.

    Raises:
        SpecError: with every problem of the file and the options. Ends the job.
    """
    tree = read_yaml(text, Place(0, 1, source))
    if not isinstance(tree.value, dict):
        if not tree.problems:
            wanted = "wanted a mapping that begins with version: 1"
            tree.problems.append(
                Problem(tree.places[()], (), f"{found_text(tree.value)}; {wanted}")
            )
        raise SpecError([str(problem) for problem in tree.problems])
    for rank, override in enumerate(overrides, start=1):
        _override(tree, override, Place(rank, 0, f"--set {_shown(override)}"))
    if limit is not None:
        _put(tree, ("input", "limit"), limit, Place(len(overrides) + 1, 0, f"--limit {limit}"))
    _fill_date(tree, date, Place(len(overrides) + 2, 0, f"--date {date}"))
    spec = _validate(tree)
    if tree.problems or spec is None:
        raise SpecError([str(problem) for problem in _in_order(tree.problems)])
    return spec


def job_schema() -> dict[str, Any]:
    """The JSON Schema of a job file, for editors and for ``rdu-batch schema``."""
    schema = _unwrapped(JobSpec.model_json_schema(schema_generator=_EditorSchema))
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**dialect, **schema, "title": "rdu_batch job"}


def job_schema_text() -> str:
    """``job_schema()`` as the committed text of ``jobs/job.schema.json``."""
    return json.dumps(job_schema(), indent=2) + "\n"


def _unwrapped(value: Any) -> Any:
    """The same schema, its descriptions without the line breaks of our source."""
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: " ".join(item.split())
        if key == "description" and isinstance(item, str)
        else _unwrapped(item)
        for key, item in value.items()
    }


class _EditorSchema(GenerateJsonSchema):
    """Without the title of each field: it repeats the key, and editors show it above the text."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda problem: problem.place)


# --- Options -------------------------------------------------------------------------------------


def _override(tree: Source, override: str, place: Place) -> None:
    path_part, equals, value_text = override.partition("=")
    keys = tuple(path_part.strip().split("."))
    if not equals or not all(keys):
        wanted = "wanted a.b=VALUE, such as generation.max_new_tokens=32"
        tree.problems.append(Problem(place, (), f"found no key or no value; {wanted}"))
        return
    if value_text.lstrip().startswith("{{"):
        # No YAML, but what a template may begin with.
        _put(tree, keys, value_text, place)
        return
    read = read_yaml(value_text, place)
    if read.problems:
        tree.problems += [Problem(place, keys, problem.text) for problem in read.problems]
        return
    _put(tree, keys, read.value, place)


def _shown(override: str) -> str:
    """An override as messages show it: its value may be a secret that is refused."""
    path_part, equals, _value = override.partition("=")
    hides = "storage_options" in path_part and equals
    return f"{path_part}={HIDDEN}" if hides else hide_secrets(override)


def _put(tree: Source, keys: tuple[str, ...], value: Any, place: Place) -> None:
    """Set a leaf, making the mappings on the way to it that are not there yet."""
    here = tree.value
    for depth, key in enumerate(keys[:-1], start=1):
        if key not in here:
            here[key] = {}
            tree.places[keys[:depth]] = place
        here = here[key]
        if not isinstance(here, dict):
            path = path_text(keys[:depth])
            text = f"{found_text(here)} at {path}; wanted a mapping there to set {keys[depth]} in"
            tree.problems.append(Problem(place, keys, text))
            return
    here[keys[-1]] = value
    for below in [path for path in tree.places if path[: len(keys)] == keys]:
        del tree.places[below]
    tree.places[keys] = place


# --- {date} --------------------------------------------------------------------------------------


def _fill_date(tree: Source, date: str | None, place: Place) -> None:
    if date is not None and not is_iso_date(date):
        text = f"found {quoted(date)}; wanted a date such as 2026-11-22"
        tree.problems.append(Problem(place, (), text))
    for path in DATED:
        section = tree.value.get(path[0])
        if isinstance(section, dict) and path[1] in section:
            section[path[1]] = _filled(tree, section[path[1]], path, date)


def _filled(tree: Source, value: Any, path: Path, date: str | None) -> Any:
    if isinstance(value, list):
        return [_filled(tree, item, (*path, i), date) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    for name in _PLACEHOLDER.findall(value):
        if name not in ("date", "yesterday"):
            hint = did_you_mean("{" + name + "}", ["{date}", "{yesterday}"])
            wanted = "{date}, {yesterday} or no placeholder"
            text = f"found {{{name}}} in {quoted(value)}; wanted {wanted}{hint}"
            tree.problems.append(Problem(tree.place_of(path), path, text))
        elif date is None:
            text = f"found {{{name}}} in {quoted(value)} and no date; wanted --date 2026-11-22"
            tree.problems.append(Problem(tree.place_of(path), path, text))
    # A date that is none was reported already.
    day = dt.date.fromisoformat(date if date and is_iso_date(date) else "2000-01-01")
    before = dt.date.fromordinal(max(1, day.toordinal() - 1))
    return value.replace("{date}", day.isoformat()).replace("{yesterday}", before.isoformat())


# --- Checks --------------------------------------------------------------------------------------


def _validate(tree: Source) -> JobSpec | None:
    spec = None
    try:
        spec = JobSpec.model_validate(tree.value)
    except ValidationError as error:
        tree.problems += [
            Problem(tree.place_of(path), path, sentence(details))
            for details in error.errors(include_url=False)
            if not is_echo(details)
            for path in [tuple(details["loc"])]
        ]
    # Pydantic checks a section as a whole only if each leaf of it is right; a person wants all.
    for name, section in tree.value.items():
        if isinstance(section, dict):
            for key, text in contradictions(name, section):
                parts = [part for part in key.split(".") if part]
                path: Path = (name, *(int(p) if p.isdigit() else p for p in parts))
                tree.problems.append(Problem(tree.place_of(path), path, text))
    prompt = tree.value.get("prompt")
    template = prompt.get("template") if isinstance(prompt, dict) else None
    if isinstance(template, str):
        path = ("prompt", "template")
        for text in template_problems(template):
            tree.problems.append(Problem(tree.place_of(path), path, text))
    return spec
