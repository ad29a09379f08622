"""A few predictions to look at, from the parts of an output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from rdu_batch.job.records import OPTIONAL_KEYS, PREDICTION_KEYS
from rdu_batch.job.run_paths import read_shard_file_name
from rdu_batch.storage.store import Store

#: Enough of a part to find a few predictions in.
READ_BYTES = 1 << 20
MAX_TEXT_CHARS = 160


def sample_predictions(store: Store, num_samples: int) -> list[str]:
    """The first predictions of an output, each as one line for people."""
    return [sample_line(record) for record in islice(_predictions(store), num_samples)]


def sample_line(record: dict[str, Any]) -> str:
    """One prediction as ``id  carried=value  -> "text"``; control characters stay escaped.

    Of several samples the first is shown, and how many there are.
    """
    name = record["id"] if record["id"] is not None else record["row"]
    own_keys = {*PREDICTION_KEYS, *OPTIONAL_KEYS}
    carried = [f"{key}={value}" for key, value in record.items() if key not in own_keys]
    text = record["prediction"]
    if isinstance(text, list):
        carried.append(f"sample=1/{len(text)}")
        text = text[0]
    if len(text) > MAX_TEXT_CHARS:
        text = text[: MAX_TEXT_CHARS - 3] + "..."
    return "  ".join([_printable(str(name)), *map(_printable, carried), "->", _printable(text)])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _predictions(store: Store) -> Iterator[dict[str, Any]]:
    for name in store.list_names():
        file = read_shard_file_name(name)
        if file is not None and file.kind == "part":
            end = min(store.stat(name).size_bytes, READ_BYTES)
            # The piece after the last newline is empty, or a line that was cut.
            for line in store.read_range(name, 0, end).split(b"\n")[:-1]:
                # A damaged line is for verify to find; here it is only no sample.
                with suppress(ValueError):
                    record = json.loads(line)
                    if isinstance(record, dict) and record.keys() >= set(PREDICTION_KEYS):
                        yield record
