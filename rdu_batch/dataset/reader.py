"""Rows by their ordinal, read back through the plan's index and checked against its pins.

Memory: one index page, the cached windows, one ranged read and one line of at most
``MAX_LINE_BYTES``. A longer line is not read at all: the index says where the next one begins.
"""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rdu_batch.dataset.formats import FORMATS
from rdu_batch.dataset.range_counter import BOM, is_blank
from rdu_batch.dataset.window_reader import WindowReader
from rdu_batch.errors import ObjectMissing, OutputMismatch
from rdu_batch.job.plan import MAX_DECODED_BYTES, MAX_LINE_BYTES, WINDOW_BYTES, InputFile, Plan
from rdu_batch.job.records import Row
from rdu_batch.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.dataset.table import TableReader

#: Lines are cut out of so many bytes at once: a lease of few rows does not cut a whole window.
_CUT_BYTES: Final = 1 << 16
#: What is kept of a line that is too long.
_BEGINNING_BYTES: Final = 256
#: What is not less than this does not begin with a blank.
_NOT_BLANK: Final = b"!"
_new_row = tuple.__new__


class RowReader:
    """Reads rows of a planned job. Not for several threads at once.

    Args:
        store: The output, which holds the index pages.
        plan: The plan of that output.
        window_bytes: The window of the index; the plan's own but in tests.
        max_line_bytes: Longer lines are told by their beginning; the format's own but in tests.
        max_decoded_bytes: As the plan was made with; the format's own but in tests.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        *,
        window_bytes: int = WINDOW_BYTES,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_decoded_bytes: int = MAX_DECODED_BYTES,
    ) -> None:
        self._store = store
        self._plan = plan
        self._window_bytes = window_bytes
        self._max_line_bytes = max_line_bytes
        self._windows = WindowReader(
            store, window_bytes=window_bytes, max_decoded_bytes=max_decoded_bytes
        )
        self._page: tuple[int, tuple[InputFile, ...]] | None = None
        self._starts: _WindowStarts | None = None
        self._place: _Place | None = None
        self._table: TableReader | None = None

    def input_files(self) -> Iterator[InputFile]:
        """Yield the input files of all pages in order.

        Raises:
            OutputMismatch: an index page is missing or damaged. Ends the job.
        """
        for index in range(len(self._plan.index_pages)):
            yield from self._files_of_page(index)

    def read_rows(self, first_row: int, end_row: int) -> Iterator[Row]:
        """Yield the rows of ordinals ``[first_row, end_row)`` in order.

        A row's bytes are its line without the LF, otherwise as the stream has them; of a line of
        more than ``MAX_LINE_BYTES`` only the beginning, with ``too_long_bytes`` set.

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
                    if FORMATS[file.format].content == "table":
                        yield from self._records(file, file_first_row, row, last)
                    else:
                        yield from self._rows_of_file(file, file_first_row, row, last)
                    row = last
                file_first_row = file_end_row
            if row >= end_row:
                return

    def _records(
        self, file: InputFile, file_first_row: int, first_row: int, end_row: int
    ) -> Iterator[Row]:
        from rdu_batch.dataset.table import TableReader

        if self._table is None:
            self._table = TableReader(self._windows, max_line_bytes=self._max_line_bytes)
        return self._table.rows(file, file_first_row, first_row, end_row)

    def _rows_of_file(
        self, file: InputFile, file_first_row: int, first_row: int, end_row: int
    ) -> Iterator[Row]:
        starts = self._starts_of(file)
        window = starts.window_of(first_row - file_first_row)
        place = _Place(
            file.index,
            file_first_row + starts.rows[window],
            starts.lines[window],
            file.windows[window].first_line_offset,
        )
        # Leases of small rows follow each other within a window: go on where the last one ended.
        left = self._place
        if left is not None and left.file_index == file.index:
            place = left if place.ordinal <= left.ordinal <= first_row else place
        last_window = starts.window_of(end_row - 1 - file_first_row)
        ordinal, line, offset = place.ordinal, place.lines_before, place.offset
        is_row_end = starts.rows
        path, index, max_line_bytes = file.path, file.index, self._max_line_bytes
        is_text = FORMATS[file.format].is_plain_text
        for piece, num_bytes, window in self._lines_from(file, offset, last_window):
            line += 1
            if num_bytes > max_line_bytes:
                # The last line of its window: a row unless all rows of the window are counted.
                is_row = ordinal - file_first_row < is_row_end[window + 1]
            else:
                # Nearly always the first byte tells that a line is not blank.
                is_row = (piece >= _NOT_BLANK and offset > 0) or not is_blank(
                    piece if offset else piece.removeprefix(BOM)
                )
            if is_row:
                if ordinal >= first_row:
                    too_long_bytes = num_bytes if num_bytes > max_line_bytes else 0
                    yield _new_row(
                        Row, (ordinal, index, line, path, offset, piece, too_long_bytes, is_text)
                    )
                ordinal += 1
                if ordinal == end_row:
                    self._place = _Place(index, ordinal, line, offset + num_bytes + 1)
                    return
            offset += num_bytes + 1
        raise OutputMismatch(
            f"the index of {file.url} names more rows than the file has; the index in "
            f"{self._store.url} is wrong, choose another output.url to plan anew"
        )

    def _lines_from(
        self, file: InputFile, offset: int, last_window: int
    ) -> Iterator[tuple[bytes, int, int]]:
        """Yield the lines from the one at ``offset`` on, which lie one after the other.

        Each as its bytes without the LF, their number, and the window in which it begins. Of a line
        that is too long, only the beginning.
        """
        index, position = divmod(offset, self._window_bytes)
        pieces: list[bytes] = []
        begun = index
        while index < len(file.windows):
            content = self._windows.window(file, index, last_window)
            for lines in _cut(content, position):
                position += sum(map(len, lines)) + len(lines)
                if pieces:
                    line = b"".join((*pieces, lines.pop(0)))
                    pieces.clear()
                    yield line, len(line), begun
                for line in lines:
                    yield line, len(line), index
            if position < len(content):
                if not pieces:
                    begun = index
                    begin = index * self._window_bytes + position
                    end = self._end_of_open_line(file, index, begin, last_window)
                    if end - begin > self._max_line_bytes:
                        beginning = content[position : position + _BEGINNING_BYTES]
                        yield beginning, end - begin, begun
                        index, position = divmod(end + 1, self._window_bytes)
                        continue
                pieces.append(content[position:])
            index += 1
            position = 0
        if pieces:
            line = b"".join(pieces)
            yield line, len(line), begun

    def _end_of_open_line(self, file: InputFile, window: int, begin: int, last_window: int) -> int:
        """Where a line ends that is open at a window's end; exactly so if it is too long."""
        starts = self._starts_of(file)
        following = bisect_right(starts.lines, starts.lines[window + 1]) - 1
        if following < len(file.windows):
            return file.windows[following].first_line_offset - 1
        end = file.logical_bytes
        if end - begin > self._max_line_bytes:
            last = self._windows.window(file, len(file.windows) - 1, last_window)
            end -= last.endswith(b"\n")
        return end

    def _starts_of(self, file: InputFile) -> _WindowStarts:
        if self._starts is None or self._starts.file_index != file.index:
            self._starts = _WindowStarts.of(file, self._store)
        return self._starts

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


def _cut(content: bytes, position: int) -> Iterator[list[bytes]]:
    """Yield the lines of a window from ``position`` on that end in it, many at once."""
    while True:
        end = content.rfind(b"\n", position, position + _CUT_BYTES)
        if end < 0:
            end = content.find(b"\n", position)
        if end < 0:
            return
        yield content[position:end].split(b"\n")
        position = end + 1


@dataclass(frozen=True)
class _Place:
    """Where the row of an ordinal, or a blank line in front of it, begins in its file."""

    file_index: int
    ordinal: int
    lines_before: int
    offset: int


@dataclass(frozen=True)
class _WindowStarts:
    """Rows and lines before each window of a file; one more than windows."""

    file_index: int
    rows: list[int]
    lines: list[int]

    @classmethod
    def of(cls, file: InputFile, store: Store) -> _WindowStarts:
        rows = list(itertools.accumulate((each.num_rows for each in file.windows), initial=0))
        lines = list(itertools.accumulate((each.num_lines for each in file.windows), initial=0))
        if rows[-1] != file.num_rows:
            raise OutputMismatch(
                f"the index of {file.url} in {store.url} counts {rows[-1]} rows in its windows, "
                f"wanted {file.num_rows}; choose another output.url to plan anew"
            )
        return cls(file.index, rows, lines)

    def window_of(self, row: int) -> int:
        """The window in which a row of the file begins."""
        return bisect_right(self.rows, row) - 1
