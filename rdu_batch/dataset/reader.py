"""Rows by their ordinal, read back through the plan's index and checked against its pins.

Memory: one index page, the cached windows, one ranged read and one line.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdu_batch.dataset.input_store import reading_input
from rdu_batch.dataset.line_index import WINDOWS_PER_READ
from rdu_batch.dataset.range_counter import BOM, is_blank, window_sha256
from rdu_batch.errors import InputError, ObjectMissing, OutputMismatch, StoreError
from rdu_batch.job.plan import WINDOW_BYTES, InputFile, Plan
from rdu_batch.job.records import Row
from rdu_batch.storage.store import Store, open_object

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_CACHED_WINDOWS = 8


class RowReader:
    """Reads rows of a planned job. Not for several threads at once.

    Args:
        store: The output, which holds the index pages.
        plan: The plan of that output.
        window_bytes: The window of the index; the plan's own but in tests.
    """

    def __init__(self, store: Store, plan: Plan, *, window_bytes: int = WINDOW_BYTES) -> None:
        self._store = store
        self._plan = plan
        self._window_bytes = window_bytes
        self._page: tuple[int, tuple[InputFile, ...]] | None = None
        self._input: tuple[int, Store, str] | None = None
        self._windows: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._place: _Place | None = None

    def input_files(self) -> Iterator[InputFile]:
        """Yield the input files of all pages in order.

        Raises:
            OutputMismatch: an index page is missing or damaged. Ends the job.
        """
        for index in range(len(self._plan.index_pages)):
            yield from self._files_of_page(index)

    def read_rows(self, first_row: int, end_row: int) -> Iterator[Row]:
        """Yield the rows of ordinals ``[first_row, end_row)`` in order.

        A row's bytes are its line without the LF, otherwise as the file has them.

        Raises:
            ValueError: the range is not one of the plan's rows.
            InputError: an input is gone or changed since the plan was made. Ends the job.
            OutputMismatch: an index page is missing or damaged. Ends the job.
            StoreError: a store failed.
        """
        if not 0 <= first_row <= end_row <= self._plan.num_rows:
            raise ValueError(f"rows [{first_row}, {end_row}) are not in [0, {self._plan.num_rows})")
        return self._read_rows(first_row, end_row)

    def _read_rows(self, first_row: int, end_row: int) -> Iterator[Row]:
        row = first_row
        for index, page in enumerate(self._plan.index_pages):
            if page.first_row + page.num_rows <= row:
                continue
            file_first_row = page.first_row
            for file in self._files_of_page(index):
                if row >= end_row:
                    return
                file_end_row = file_first_row + file.num_rows
                if row < file_end_row:
                    last = min(end_row, file_end_row)
                    yield from self._rows_of_file(file, file_first_row, row, last)
                    row = last
                file_first_row = file_end_row
            if row >= end_row:
                return

    def _rows_of_file(
        self, file: InputFile, file_first_row: int, first_row: int, end_row: int
    ) -> Iterator[Row]:
        span = _span_of(file, first_row - file_first_row, end_row - file_first_row)
        start = _Place(
            file.index,
            file_first_row + span.rows_before,
            span.lines_before,
            file.windows[span.first_window].first_line_offset,
        )
        # Leases of small rows follow each other within a window: go on where the last one ended.
        left = self._place
        if left is not None and left.file_index == file.index:
            start = left if start.ordinal <= left.ordinal <= first_row else start
        ordinal, line = start.ordinal, start.lines_before
        for offset, line_bytes in self._lines_from(file, start.offset, span.last_window):
            line += 1
            if is_blank(line_bytes.removeprefix(BOM) if offset == 0 else line_bytes):
                continue
            if ordinal >= first_row:
                yield Row(ordinal, file.index, line, file.path, offset, line_bytes)
            ordinal += 1
            if ordinal == end_row:
                self._place = _Place(file.index, ordinal, line, offset + len(line_bytes) + 1)
                return
        raise OutputMismatch(
            f"the index of {file.url} names more rows than the file has; the index in "
            f"{self._store.url} is wrong, choose another output.url to plan anew"
        )

    def _lines_from(
        self, file: InputFile, offset: int, last_window: int
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes without the LF) of all lines from the one at ``offset`` on."""
        first_window, position = divmod(offset, self._window_bytes)
        pieces: list[bytes] = []
        for index in range(first_window, len(file.windows)):
            content = self._window(file, index, last_window)
            while (newline := content.find(b"\n", position)) >= 0:
                line_bytes = content[position:newline]
                if pieces:
                    line_bytes = b"".join((*pieces, line_bytes))
                    pieces.clear()
                yield offset, line_bytes
                position = newline + 1
                offset = index * self._window_bytes + position
            if position < len(content):
                pieces.append(content[position:])
            position = 0
        if pieces:
            yield offset, b"".join(pieces)

    def _window(self, file: InputFile, index: int, last_wanted: int) -> bytes:
        """Return a checked window; reads ahead to ``last_wanted``, or past it for a long line."""
        key = (file.index, index)
        if key not in self._windows:
            num_wanted = last_wanted - index + 1
            if num_wanted <= 0:
                num_wanted = 1 if index == last_wanted + 1 else WINDOWS_PER_READ
            self._fetch(file, index, min(num_wanted, WINDOWS_PER_READ, len(file.windows) - index))
        self._windows.move_to_end(key)
        return self._windows[key]

    def _fetch(self, file: InputFile, first: int, num_windows: int) -> None:
        store, name = self._open_input(file)
        start = first * self._window_bytes
        end = min(start + num_windows * self._window_bytes, file.size_bytes)
        with reading_input(file.url):
            try:
                content = store.read_range(name, start, end)
            except StoreError:
                _check_pin(store, name, file)  # a change is said as a change, not as a failed read
                raise
        for index in range(first, first + num_windows):
            begin = (index - first) * self._window_bytes
            window = content[begin : begin + self._window_bytes]
            if window_sha256(window) != file.windows[index].sha256:
                raise _changed(
                    file,
                    f"bytes {start + begin} to {start + begin + len(window)} are not those planned",
                )
            self._windows[file.index, index] = window
            if len(self._windows) > _MAX_CACHED_WINDOWS:
                self._windows.popitem(last=False)

    def _open_input(self, file: InputFile) -> tuple[Store, str]:
        """Open an input; its pin is checked when the reader comes to it from another file."""
        if self._input is None or self._input[0] != file.index:
            with reading_input(file.url):
                store, name = open_object(file.url)
                _check_pin(store, name, file)
            self._input = (file.index, store, name)
        return self._input[1], self._input[2]

    def _files_of_page(self, index: int) -> tuple[InputFile, ...]:
        if self._page is None or self._page[0] != index:
            self._page = (index, self._load_page(index))
        return self._page[1]

    def _load_page(self, index: int) -> tuple[InputFile, ...]:
        page = self._plan.index_pages[index]
        url = self._store.join(page.name)
        advice = "restore it, or choose another output.url to plan anew"
        try:
            content = self._store.read(page.name)
        except ObjectMissing as error:
            raise OutputMismatch(f"the index page {url} is gone; {advice}") from error
        if hashlib.sha256(content).hexdigest() != page.sha256:
            raise OutputMismatch(
                f"the index page {url} is damaged: its sha256 is not the one in the plan; {advice}"
            )
        return tuple(InputFile.from_line(line) for line in content.splitlines())


@dataclass(frozen=True)
class _Place:
    """Where the row of an ordinal, or a blank line in front of it, begins in its file."""

    file_index: int
    ordinal: int
    lines_before: int
    offset: int


@dataclass(frozen=True)
class _Span:
    """The windows in which the lines of some rows of a file begin."""

    first_window: int
    last_window: int
    #: Rows and lines of the file before the first window's own.
    rows_before: int
    lines_before: int


def _span_of(file: InputFile, first_row: int, end_row: int) -> _Span:
    """Find the windows of rows ``[first_row, end_row)`` of a file; the range is not empty."""
    first_window = rows_before = lines_before = num_rows = num_lines = 0
    for index, window in enumerate(file.windows):
        if num_rows <= first_row < num_rows + window.num_rows:
            first_window, rows_before, lines_before = index, num_rows, num_lines
        num_rows += window.num_rows
        num_lines += window.num_lines
        if num_rows >= end_row:
            return _Span(first_window, index, rows_before, lines_before)
    raise OutputMismatch(
        f"the index of {file.url} counts {num_rows} rows in its windows, wanted {file.num_rows}; "
        "choose another output.url to plan anew"
    )


def _check_pin(store: Store, name: str, file: InputFile) -> None:
    try:
        found = store.stat(name)
    except ObjectMissing as error:
        raise _changed(file, "it is gone") from error
    if found.size_bytes != file.size_bytes:
        raise _changed(file, f"it has {found.size_bytes} bytes, planned {file.size_bytes}")
    if file.etag is not None and found.etag is not None and found.etag != file.etag:
        raise _changed(file, f"its etag is {found.etag}, planned {file.etag}")


def _changed(file: InputFile, found: str) -> InputError:
    return InputError(
        f"{file.url} changed since the plan was made: {found}; put the old file back, or choose "
        "another output.url to plan the inputs as they are now"
    )
