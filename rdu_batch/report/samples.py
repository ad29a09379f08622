"""A few predictions to look at, from the parts of an output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from rdu_batch.errors import RowError
from rdu_batch.job.json_object import read_object
from rdu_batch.job.records import OPTIONAL_KEYS, PREDICTION_KEYS, Fields
from rdu_batch.job.run_paths import read_shard_file_name
from rdu_batch.report.rendered_rows import escaped
from rdu_batch.storage.store import Store

MAX_TEXT_CHARS = 160


#: Gives the lines of a part of a store, from its name and size in bytes, whatever its format.
ReadLines = Callable[[Store, str, int], Iterator[bytes]]


def sample_predictions(store: Store, num_samples: int, read_lines: ReadLines) -> list[str]:
    """The first predictions of an output, each as one line for people."""
    return [sample_line(record) for record in islice(_predictions(store, read_lines), num_samples)]


def sample_line(fields: Fields) -> str:
    """One prediction as ``id  carried=value  ->  text``; control characters stay escaped.

    A value is shown as its JSON text in the part, a text without its quotes where that is clear.
    Of several samples the first is shown, and how many there are.
    """
    record = fields.values
    name = str(record["row"]) if record["id"] is None else _shown(record["id"], fields.texts["id"])
    own_keys = {*PREDICTION_KEYS, *OPTIONAL_KEYS}
    carried = [
        f"{key}={_shown(value, fields.texts[key])}"
        for key, value in record.items()
        if key not in own_keys
    ]
    text = record["prediction"]
    if isinstance(text, list):
        carried.append(f"sample=1/{len(text)}")
        text = text[0]
    if len(text) > MAX_TEXT_CHARS:
        text = text[: MAX_TEXT_CHARS - 3] + "..."
    return "  ".join([escaped(name), *map(escaped, carried), "->", escaped(text)])


def _shown(value: Any, text: str) -> str:
    """A value's JSON text; a text as it is, unless it would read as another value."""
    if not isinstance(value, str):
        return text
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return value
    return text


def _predictions(store: Store, read_lines: ReadLines) -> Iterator[Fields]:
    for name, stat in store.list_objects():
        file = read_shard_file_name(name)
        if file is not None and file.kind == "part":
            # What is damaged is for verify to find; here it is only no sample.
            with suppress(ValueError):
                yield from _records(read_lines(store, name, stat.size_bytes))


def _records(lines: Iterator[bytes]) -> Iterator[Fields]:
    for line in lines:
        with suppress(ValueError, RowError):
            text = line.decode()
            record = read_object(text)
            if record.keys() >= set(PREDICTION_KEYS):
                yield Fields(record, None, text)
