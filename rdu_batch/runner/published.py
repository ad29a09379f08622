"""What a consumer reads of an output: the lines of its files, and what each line says.

Promises: files of any size are read in bounded memory; a line is read back as the outcome that it
was written from; a file is handed on only with the sha256 that its manifest names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

from rdu_batch.errors import ObjectMissing, VerifyFailed
from rdu_batch.job.json_object import MAX_INT_DIGITS
from rdu_batch.job.records import DEAD_KEYS, PREDICTION_KEYS
from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.part_formats import SUFFIX_OF, unpacked_lines
from rdu_batch.runner.sealing import LineSpool
from rdu_batch.storage.store import Store

#: Files are read in ranges of this size, so that one of any size fits in memory.
READ_BYTES = 8 << 20


def read_lines(store: Store, name: str, size_bytes: int) -> Iterator[bytes]:
    """Lines of an object, each with its newline, in bounded memory; the last may lack one.

    Raises:
        ValueError: it is packed (see ``part_formats``) and damaged; the lines before are given.
        StoreDriverMissing: what unpacks it is not installed. Ends the command (exit 6).
    """
    if not name.endswith(SUFFIX_OF["jsonl"]):
        with BufferedReader(_ObjectFile(store, name, size_bytes), READ_BYTES) as file:
            yield from unpacked_lines(file, name)
        return
    rest = b""
    for start in range(0, size_bytes, READ_BYTES):
        rest += store.read_range(name, start, min(start + READ_BYTES, size_bytes))
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


class _ObjectFile(RawIOBase):
    """An object as a file to read from and to seek in; each read is one of the store."""

    def __init__(self, store: Store, name: str, size_bytes: int) -> None:
        self._store = store
        self._name = name
        self._size_bytes = size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        base = {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size_bytes)
        if end <= self._at:
            return 0
        content = self._store.read_range(self._name, self._at, end)
        buffer[: len(content)] = content
        self._at = end
        return len(content)


def read_record(line: bytes) -> dict[str, Any]:
    """The JSON object of a prediction or dead letter line.

    Raises:
        ValueError, TypeError: it is not one.
    """
    document = json.loads(line, parse_int=_parse_int)
    if not isinstance(document, dict):
        raise TypeError(f"found {line[:40]!r}; wanted a JSON object")
    return document


def outcome_of(line: bytes, *, is_prediction: bool) -> Outcome:
    """The outcome that a published line was written from.

    Raises:
        ValueError, KeyError, TypeError: the line is not what this program writes.
    """
    record = read_record(line)
    wanted = PREDICTION_KEYS if is_prediction else DEAD_KEYS
    found = tuple(record)[: len(wanted)]
    if found != wanted:
        raise ValueError(f"its keys are {list(found)}, wanted {list(wanted)}")
    if not is_prediction:
        return Outcome(False, ",".join([record["reason"]]), line)
    return Outcome(
        True,
        ",".join(_samples_of(record, "finish_reason")),
        line,
        _count(record["num_prompt_tokens"]),
        sum(_count(number) for number in _samples_of(record, "num_generated_tokens")),
    )


def fetch_file(store: Store, entry: dict[str, Any], path: Path) -> None:
    """Copy a published file to local disk.

    Args:
        store: the output.
        entry: what the manifest says of the file.
        path: of the local copy.

    Raises:
        VerifyFailed: it is missing, or not what the manifest says. Ends the command (exit 7).
        StoreError: the store or the local disk failed.
    """
    name, wanted = str(entry["name"]), str(entry["sha256"])
    try:
        size_bytes = store.stat(name).size_bytes
    except ObjectMissing as error:
        raise VerifyFailed(
            f"{store.join(name)} is missing; run `rdu-batch verify {store.url}`"
        ) from error
    # As pieces, not lines: all that the spool promises holds for any bytes.
    with LineSpool(path) as spool:
        for start in range(0, size_bytes, READ_BYTES):
            spool.write(store.read_range(name, start, min(start + READ_BYTES, size_bytes)))
    if spool.sha256 != wanted:
        raise VerifyFailed(
            f"{store.join(name)} is damaged: its sha256 is {spool.sha256}, the manifest says "
            f"{wanted}; run `rdu-batch verify {store.url}`, which says how to repair it"
        )


def sha256_of(store: Store, name: str) -> str | None:
    """Hex digest of an object's bytes, in bounded memory; None if there is none."""
    try:
        size_bytes = store.stat(name).size_bytes
    except ObjectMissing:
        return None
    digest = hashlib.sha256()
    for start in range(0, size_bytes, READ_BYTES):
        digest.update(store.read_range(name, start, min(start + READ_BYTES, size_bytes)))
    return digest.hexdigest()


def _samples_of(record: dict[str, Any], key: str) -> list[Any]:
    """What a line says of each of its samples; of most rows there is one, without a list."""
    value = record[key]
    return value if isinstance(value, list) else [value]


def _count(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"found {value!r}; wanted a number of tokens")
    return value


def _parse_int(text: str) -> int | Decimal:
    # Python's own int refuses texts of more than 4300 digits; a carried field may have them.
    return int(text) if len(text) <= MAX_INT_DIGITS else Decimal(text)
