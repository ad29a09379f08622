"""A row's own generation settings: the job's, with what one field of the row says instead.

Promises: what a row may say passes the same checks as the job file; a row that says something else
is refused with the same detail on every machine. Does not: let a row change what its line looks
like (``num_samples``, ``logprobs``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rdu_batch.errors import RowError
from rdu_batch.job.reasons import Reason
from rdu_batch.job.spec import GenerationSpec
from rdu_batch.job.spec_checks import contradictions
from rdu_batch.job.spec_problems import did_you_mean, found_text, is_echo, quoted, sentence
from rdu_batch.job.yaml_source import path_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rdu_batch.job.records import Fields

_OF_THE_JOB_ALONE = ("num_samples", "logprobs", "overrides_field")
#: Settings that a row may have of its own.
OVERRIDABLE = tuple(key for key in GenerationSpec.model_fields if key not in _OF_THE_JOB_ALONE)


def generation_of(fields: Fields, generation: GenerationSpec) -> GenerationSpec:
    """The settings of one row: the job's own where the row says nothing.

    The field named by ``generation.overrides_field`` holds an object with any of ``OVERRIDABLE``;
    absent or null means that the row says nothing. A null inside it turns a setting off that may be
    off (``top_k``, ``top_p``, ``min_p``).

    Raises:
        RowError: ``bad_override``: no object, an unknown key, a wrong value, or settings that
            contradict each other or the job's. Ends the row.
    """
    name = generation.overrides_field
    overrides = fields.values.get(name) if name is not None else None
    if overrides is None:
        return generation
    place = f"the field {quoted(name or '')}"
    if not isinstance(overrides, dict):
        wanted = 'wanted an object of generation settings, such as {"max_new_tokens": 32}'
        raise RowError(Reason.BAD_OVERRIDE, f"{place}: {found_text(overrides)}; {wanted}")
    settings = generation.model_dump() | overrides
    problems = list(_unknown_keys(overrides))
    if not problems:
        try:
            return GenerationSpec.model_validate(settings)
        except ValidationError as error:
            problems = list(_problems(error, settings))
    raise RowError(Reason.BAD_OVERRIDE, f"{place}: {'. '.join(problems)}")


def _unknown_keys(overrides: Mapping[str, Any]) -> Iterator[str]:
    for key in overrides:
        if key not in OVERRIDABLE:
            wanted = f"wanted one of {', '.join(OVERRIDABLE)}"
            hint = did_you_mean(key, OVERRIDABLE)
            yield f"found the key {quoted(key)}; {wanted}{hint}"


def _problems(error: ValidationError, settings: Mapping[str, Any]) -> Iterator[str]:
    for details in error.errors(include_url=False):
        if not is_echo(details):
            path = details["loc"]
            # Sentences are about paths of a job file.
            in_job = details | {"loc": (GenerationSpec.SECTION, *path)}
            yield f"{path_text(path)}: {sentence(in_job)}"
    for key, text in contradictions(GenerationSpec.SECTION, settings):
        yield f"{key}: {text}"
