"""Parquet files: every record is a row, whose line is the JSON object of its columns.

The line is compact, in the file's column order, in UTF-8: integers exactly, decimals as text,
dates and times as ISO 8601 text, binary values as base64 text, structs as objects, lists and maps
as arrays, nulls as null. NaN and infinities stay as they are, which is no JSON: such a record is a
dead letter, as is one whose text is no UTF-8. A row group is a window of the index; its pin is the
sha256 of its stored bytes. A line's number and offset are the record's, from 1 and from 0.
Memory: a batch of records, and a page of each column.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import io
import itertools
import json
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

import xxhash

from rdu_batch.dataset.decoding import DamagedContentError
from rdu_batch.dataset.input_store import reading_input
from rdu_batch.dataset.logical_stream import stored_pieces
from rdu_batch.dataset.window_reader import WindowReader, changed
from rdu_batch.errors import InputError, RduBatchError
from rdu_batch.job.plan import Window
from rdu_batch.job.records import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.job.plan import InputFile
    from rdu_batch.storage.store import Store

_BATCH_RECORDS: Final = 1024
_BUFFER_BYTES: Final = 1 << 20
#: Row groups up to this size are checked against their pin even where the file has an etag.
_MAX_CHECKED_BYTES: Final = 64 << 20
_BEGINNING_BYTES: Final = 256


def index_table(store: Store, name: str, size_bytes: int) -> tuple[Window, ...]:
    """The row groups of a file as windows.

    Raises:
        DamagedContentError: it is no Parquet file, or its end is missing.
        InputError: pyarrow is not installed. Ends the job.
    """
    metadata = _open(store, name, size_bytes).metadata
    windows = []
    first = 0
    for index in range(metadata.num_row_groups):
        num_rows = metadata.row_group(index).num_rows
        start, end = _stored_range(metadata, index)
        digest = _digest(store, name, start, end)
        windows.append(Window(num_rows, num_rows, first if num_rows else -1, digest))
        first += num_rows
    return tuple(windows)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "a .parquet input needs the package pyarrow, which is not installed; "
            'install it with: pip install "rdu_batch[parquet]"'
        ) from error
    return pyarrow


def _open(store: Store, name: str, size_bytes: int) -> Any:
    pyarrow = _pyarrow()
    try:
        return pyarrow.parquet.ParquetFile(
            _StoredFile(store, name, size_bytes), buffer_size=_BUFFER_BYTES, pre_buffer=False
        )
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        found = f"it is no Parquet file, or its end is missing ({str(error).splitlines()[0]})"
        raise DamagedContentError(found, size_bytes, "stored") from error


def _stored_range(metadata: Any, group: int) -> tuple[int, int]:
    """Where the columns of a row group lie in the file."""
    columns = [metadata.row_group(group).column(n) for n in range(metadata.num_columns)]
    starts = [
        min(offset for offset in (one.dictionary_page_offset, one.data_page_offset) if offset)
        for one in columns
    ]
    ends = [start + one.total_compressed_size for start, one in zip(starts, columns, strict=True)]
    return min(starts, default=0), max(ends, default=0)


def _digest(store: Store, name: str, start: int, end: int) -> str:
    digest = xxhash.xxh3_64()
    for piece in stored_pieces(store, name, start, end):
        digest.update(piece)
    return str(digest.hexdigest())


class _StoredFile(io.RawIOBase):
    """A file of a store as pyarrow wants one: each read is a ranged read."""

    def __init__(self, store: Store, name: str, size_bytes: int) -> None:
        self._store, self._name, self._size_bytes = store, name, size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size_bytes if size < 0 else min(self._at + size, self._size_bytes)
        if end <= self._at:
            return b""
        content = self._store.read_range(self._name, self._at, end)
        self._at = end
        return content

    def readall(self) -> bytes:
        return self.read()


class TableReader:
    """Reads records of planned tables; goes on where the last read of a file stood."""

    def __init__(self, windows: WindowReader, *, max_line_bytes: int) -> None:
        self._windows = windows
        self._max_line_bytes = max_line_bytes
        self._file_index = -1
        self._table: Any = None
        self._checked: set[int] = set()
        self._next_record = -1
        self._lines: Iterator[bytes] = iter(())

    def rows(
        self, file: InputFile, file_first_row: int, first_row: int, end_row: int
    ) -> Iterator[Row]:
        """Yield the rows of ordinals ``[first_row, end_row)``, which lie in this file.

        Raises:
            InputError: the file is gone, changed or damaged. Ends the job.
        """
        store, name = self._windows.open_input(file)
        first = first_row - file_first_row
        with reading_input(file.url):
            try:
                if self._file_index != file.index:
                    self._table = _open(store, name, file.size_bytes)
                    self._file_index, self._checked, self._next_record = file.index, set(), -1
                if self._next_record != first:
                    self._lines = self._lines_from(store, name, file, first)
                for record in range(first, end_row - file_first_row):
                    line = next(self._lines)
                    self._next_record = record + 1
                    num_bytes = len(line)
                    too_long_bytes = num_bytes if num_bytes > self._max_line_bytes else 0
                    yield Row(
                        file_first_row + record,
                        file.index,
                        record + 1,
                        file.path,
                        record,
                        line[:_BEGINNING_BYTES] if too_long_bytes else line,
                        too_long_bytes,
                    )
            except DamagedContentError as error:
                raise changed(file, f"it is damaged {error}") from error
            except StopIteration:
                raise changed(file, "it has fewer records than planned") from None

    def _lines_from(self, store: Store, name: str, file: InputFile, first: int) -> Iterator[bytes]:
        starts = list(itertools.accumulate((each.num_rows for each in file.windows), initial=0))
        group = bisect_right(starts, first) - 1
        skip = first - starts[group]
        pyarrow = _pyarrow()
        for index in range(group, len(file.windows)):
            self._check_group(store, name, file, index)
            try:
                for batch in self._table.iter_batches(_BATCH_RECORDS, row_groups=[index]):
                    if skip < batch.num_rows:
                        yield from _lines(batch.slice(skip))
                    skip = max(0, skip - batch.num_rows)
            except RduBatchError:
                raise
            except (pyarrow.ArrowException, OSError, ValueError) as error:
                raise InputError(
                    f"{file.url}, row group {index}: cannot be read: {error}; repair the file, or "
                    "leave it out of the inputs"
                ) from error

    def _check_group(self, store: Store, name: str, file: InputFile, index: int) -> None:
        """Check a row group's stored bytes, but not of a large one of a file with an etag."""
        start, end = _stored_range(self._table.metadata, index)
        if index in self._checked or (file.etag and end - start > _MAX_CHECKED_BYTES):
            return
        if _digest(store, name, start, end) != file.windows[index].digest:
            raise changed(file, f"bytes {start} to {end} are not those planned")
        self._checked.add(index)


def _lines(batch: Any) -> Iterator[bytes]:
    names = batch.schema.names
    columns = [_values(column) for column in batch.columns]
    encode = _encoder.encode
    if len(set(names)) == len(names):
        for values in zip(*columns, strict=True):
            yield encode(dict(zip(names, values, strict=True))).encode("utf-8", "surrogateescape")
        return
    # A name that is given twice is a duplicate key, as in a line of JSON.
    keys = [encode(name) for name in names]
    for values in zip(*columns, strict=True):
        fields = (f"{key}:{encode(value)}" for key, value in zip(keys, values, strict=True))
        yield f"{{{','.join(fields)}}}".encode("utf-8", "surrogateescape")


def _values(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        # Bytes that are no UTF-8 are kept: the row is a dead letter, its neighbours are not.
        raw = column.cast(_pyarrow().binary(), safe=False).to_pylist()
        return [None if one is None else one.decode("utf-8", "surrogateescape") for one in raw]
    return values


def _plain(value: object) -> object:
    """A value that JSON does not know, as text."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


_encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain)
