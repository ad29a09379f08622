"""The types of a job file's leaves that a plain type alone cannot say.

Promises: what a leaf may be, for the loader and for the JSON Schema alike. Does not: know which
leaf has which type (``spec``), or how leaves go together (``spec_checks``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from rdu_batch.job.spec_checks import (
    check_carried,
    check_count,
    check_date,
    check_dead_rows,
    check_memory,
)

NonEmpty = Annotated[str, Field(min_length=1)]
# A YAML list is a Python list; strictness still holds for what is in it.
Texts = Annotated[
    tuple[NonEmpty, ...], Field(strict=False, json_schema_extra={"uniqueItems": True})
]
TokenIds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    Field(strict=False, json_schema_extra={"uniqueItems": True}),
]
Carried = Annotated[
    tuple[Annotated[NonEmpty, AfterValidator(check_carried)], ...],
    Field(strict=False, json_schema_extra={"uniqueItems": True}),
]
DeadRows = Annotated[
    int | str,
    BeforeValidator(check_dead_rows),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,12})?%$"},
            ],
            "examples": [0, 25, "0.1%"],
        }
    ),
]
WorkerCount = Annotated[
    int | Literal["auto"],
    BeforeValidator(check_count),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
]
MemoryBytes = Annotated[
    int | str,
    BeforeValidator(check_memory),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^[1-9][0-9]{0,14}(k|M|G|T)(i?)B$"},
            ],
            "examples": ["8GiB", 8589934592],
        }
    ),
]
IsoDate = Annotated[
    str,
    AfterValidator(check_date),
    WithJsonSchema({"type": "string", "pattern": r"^([0-9]{4}-[0-9]{2}-[0-9]{2}|\{date\})$"}),
]
#: What may be in it says ``storage_options.option_problems``; a section's check asks it.
StorageOptions = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean", "object", "null"]},
            "examples": [{"key": "${ENV:STORE_KEY}", "secret": "${ENV:STORE_SECRET}"}],
        }
    ),
]
