"""Prediction lines to Parquet and back, byte for byte.

Promises: the columns follow from the plan alone, so that all parts of a job have the same, an empty
part too. Does not: guess types from rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

from rdu_batch.job.json_object import read_object, read_texts
from rdu_batch.job.records import OPTIONAL_KEYS, PREDICTION_KEYS, prediction_keys

if TYPE_CHECKING:
    from rdu_batch.job.plan import Plan

#: Rows of a row group, which is what is held in memory.
_GROUP_ROWS: Final = 16_384
_COMPRESSION: Final = "zstd"
_ID: Final = "id"
#: Keys with one value for each sample.
_OF_SAMPLES: Final = frozenset({"prediction", "finish_reason", "num_generated_tokens", "logprobs"})
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def write_parquet(lines: IO[bytes], target: IO[bytes], plan: Plan) -> None:
    """Write the prediction lines of a shard as one Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema_of(plan)
    with parquet.ParquetWriter(target, schema, compression=_COMPRESSION) as writer:
        while group := list(islice(lines, _GROUP_ROWS)):
            records = [_record_of(line, schema.names) for line in group]
            columns = [
                pa.array([record[at] for record in records], field.type)
                for at, field in enumerate(schema)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def read_parquet(file: IO[bytes]) -> Iterator[bytes]:
    """The prediction lines that a file was written from.

    Raises:
        ValueError: it is not a whole file of ours; the lines before are given.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file)
        names = opened.schema_arrow.names
        if tuple(names[: len(PREDICTION_KEYS)]) != PREDICTION_KEYS:
            raise ValueError(f"its columns are {names[:8]}, wanted {list(PREDICTION_KEYS)} first")
        are_json = [_is_json(name) for name in names]
        keys = [_encode(name) for name in names]
        for batch in opened.iter_batches(_GROUP_ROWS):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield _line_of(keys, values, are_json)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is no whole Parquet file: {error}") from error


def _schema_of(plan: Plan) -> Any:
    import pyarrow as pa

    has_several = plan.decides["generation"]["num_samples"] > 1
    types = {
        "row": pa.list_(pa.int64()),
        "num_prompt_tokens": pa.int64(),
        "num_generated_tokens": pa.int64(),
        "num_cut_tokens": pa.int64(),
        "logprobs": pa.list_(pa.float64()),
    }
    fields = []
    for name in prediction_keys(plan.decides):
        kind = pa.string() if _is_json(name) else types.get(name, pa.string())
        if has_several and name in _OF_SAMPLES and not _is_json(name):
            kind = pa.list_(kind)
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _is_json(name: str) -> bool:
    """Whether a column holds the JSON text of a field of the input.

    A carried field cannot have the name of a key of ours, so names tell.
    """
    return name == _ID or name not in (*PREDICTION_KEYS, *OPTIONAL_KEYS)


def _record_of(line: bytes, names: list[str]) -> list[Any]:
    text = line.decode()
    values, texts = read_object(text), read_texts(text)
    return [
        (None if texts[name] == "null" else texts[name]) if _is_json(name) else values[name]
        for name in names
    ]


def _line_of(keys: list[str], values: tuple[Any, ...], are_json: list[bool]) -> bytes:
    texts = (
        (value if value is not None else "null") if is_json else _encode(value)
        for value, is_json in zip(values, are_json, strict=True)
    )
    pairs = ",".join(f"{key}:{text}" for key, text in zip(keys, texts, strict=True))
    return f"{{{pairs}}}\n".encode()
