"""The line index of one file, made window by window in bounded memory.

Joins the counts of ``range_counter.py``: a line belongs to the window in which its first byte lies,
wherever it ends. Notes the longest rows on the way. A line is never held: its length is no limit.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from rdu_batch.dataset.input_store import reading_input
from rdu_batch.dataset.range_counter import BOM, count_window, is_blank, longer_lines
from rdu_batch.errors import InputError, ObjectMissing
from rdu_batch.job.plan import WINDOW_BYTES, InputFile, LongestRow, Window
from rdu_batch.storage.store import ObjectStat, Store, open_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.dataset.listing import ListedFile

#: Windows fetched by one ranged read.
WINDOWS_PER_READ = 8
MOST_LONGEST_ROWS = 5


class LongestRows:
    """The longest rows seen so far: by bytes, then by file and line, so the choice is fixed."""

    def __init__(self, most: int = MOST_LONGEST_ROWS) -> None:
        self.most = most
        self._rows: list[LongestRow] = []

    @property
    def floor_bytes(self) -> int:
        """A later row of this many bytes or fewer cannot come in."""
        return self._rows[-1].num_bytes if len(self._rows) == self.most else 0

    def offer(self, row: LongestRow) -> None:
        """Take the row in if it is long enough."""
        self._rows.append(row)
        self._rows.sort(key=lambda each: (-each.num_bytes, each.file_index, each.line))
        del self._rows[self.most :]

    def rows(self) -> tuple[LongestRow, ...]:
        """Return the longest rows, longest first."""
        return tuple(self._rows)


class LineIndexer:
    """Takes the windows of one file in order and gives its index.

    ``row_limit`` ends the search for the longest rows (not the index) after that many rows.
    """

    def __init__(
        self, file_index: int, path: str, longest: LongestRows, row_limit: int | None = None
    ) -> None:
        self.num_lines = 0
        self.num_rows = 0
        self._file_index = file_index
        self._path = path
        self._longest = longest
        self._row_limit = row_limit
        self._offset = 0
        self._line_counts: list[int] = []
        self._row_counts: list[int] = []
        self._first_offsets: list[int] = []
        self._digests: list[str] = []
        # The line that began and has not ended: its offset, its window, and whether it is blank.
        self._open_offset: int | None = None
        self._open_window = 0
        self._open_is_blank = True

    def add_window(self, content: bytes) -> None:
        """Take the next window; all but the last have the same size, none is empty."""
        count = count_window(content, is_first=self._offset == 0)
        base = self._offset
        self._line_counts.append(0)
        self._row_counts.append(0)
        self._first_offsets.append(-1)
        self._digests.append(count.sha256)
        if self._open_offset is None:
            self._begin_line(base)
        self._open_is_blank = self._open_is_blank and count.head_is_blank
        if count.num_newlines:
            self._end_line(base + count.head_end - 1)
            num_inner = count.num_newlines - 1
            if num_inner:
                self._note_begin(base + count.head_end, num_inner)
                self._note_longest(content, count.head_end, count.tail_start, count.num_inner_rows)
                self._row_counts[-1] += count.num_inner_rows
                self.num_lines += num_inner
                self.num_rows += count.num_inner_rows
            if count.tail_start < len(content):
                self._begin_line(base + count.tail_start)
                self._open_is_blank = count.tail_is_blank
        self._offset += len(content)

    def finish(self) -> tuple[Window, ...]:
        """End the file; a last line without a newline counts like any other."""
        if self._open_offset is not None:
            self._end_line(self._offset)
        return tuple(
            map(Window, self._line_counts, self._row_counts, self._first_offsets, self._digests)
        )

    def _note_begin(self, offset: int, num_lines: int) -> None:
        self._line_counts[-1] += num_lines
        if self._first_offsets[-1] < 0:
            self._first_offsets[-1] = offset

    def _begin_line(self, offset: int) -> None:
        self._note_begin(offset, 1)
        self._open_offset = offset
        self._open_window = len(self._line_counts) - 1
        self._open_is_blank = True

    def _end_line(self, end: int) -> None:
        begin = self._open_offset or 0
        if not self._open_is_blank:
            if self._row_limit is None or self.num_rows < self._row_limit:
                self._offer(end - begin, self.num_lines + 1)
            self._row_counts[self._open_window] += 1
            self.num_rows += 1
        self.num_lines += 1
        self._open_offset = None

    def _note_longest(self, content: bytes, start: int, end: int, num_rows: int) -> None:
        """Look for long rows among the whole lines of a window that has ``num_rows`` of them."""
        if self._row_limit is not None and self.num_rows + num_rows > self._row_limit:
            end = _end_of_rows(content, start, end, self._row_limit - self.num_rows)
        floor = self._longest.floor_bytes
        for num_bytes, offset in longer_lines(content, start, end, floor, most=self._longest.most):
            lines_before = content.count(b"\n", start, offset)
            self._offer(num_bytes, self.num_lines + lines_before + 1)

    def _offer(self, num_bytes: int, line: int) -> None:
        if num_bytes > self._longest.floor_bytes:
            self._longest.offer(LongestRow(self._file_index, line, self._path, num_bytes))


def index_file(
    listed: ListedFile,
    index: int,
    longest: LongestRows,
    *,
    row_limit: int | None = None,
    window_bytes: int = WINDOW_BYTES,
) -> InputFile:
    """Read a file once and index it; pinned by its etag, or by its sha256 if the store has none.

    Args:
        listed: The file, with the size and etag it is pinned to.
        index: Its position among the inputs of the plan.
        longest: Takes in the longest rows.
        row_limit: Rows after this many are left out of ``longest``.
        window_bytes: At least 3, so that a byte order mark lies in the first window.

    Raises:
        InputError: the file went away or changed while it was read, or its store failed.
    """
    if window_bytes < len(BOM):
        raise ValueError(f"window_bytes is {window_bytes}, wanted at least {len(BOM)}")
    indexer = LineIndexer(index, listed.path, longest, row_limit)
    whole = hashlib.sha256() if listed.etag is None else None
    try:
        with reading_input(listed.url):
            store, name = open_object(listed.url)
            for content in _windows(store, name, listed.size_bytes, window_bytes):
                if whole is not None:
                    whole.update(content)
                indexer.add_window(content)
            after = store.stat(name)
    except ObjectMissing as error:
        raise InputError(
            f"{listed.url} was listed as an input but is not there; "
            "run again when the inputs are settled"
        ) from error
    if after != ObjectStat(listed.size_bytes, listed.etag):
        raise InputError(
            f"{listed.url} changed while it was indexed: found {after}, listed as "
            f"{ObjectStat(listed.size_bytes, listed.etag)}; run again when the inputs are settled"
        )
    windows = indexer.finish()
    return InputFile(
        index=index,
        url=listed.url,
        path=listed.path,
        size_bytes=listed.size_bytes,
        etag=listed.etag,
        sha256=whole.hexdigest() if whole is not None else None,
        num_lines=indexer.num_lines,
        num_rows=indexer.num_rows,
        windows=windows,
    )


def _windows(store: Store, name: str, size_bytes: int, window_bytes: int) -> Iterator[bytes]:
    read_bytes = window_bytes * WINDOWS_PER_READ
    for start in range(0, size_bytes, read_bytes):
        content = store.read_range(name, start, min(start + read_bytes, size_bytes))
        for begin in range(0, len(content), window_bytes):
            yield content[begin : begin + window_bytes]


def _end_of_rows(content: bytes, start: int, end: int, num_rows: int) -> int:
    """Return the offset after the first ``num_rows`` rows of ``content[start:end]``."""
    position = start
    while num_rows > 0 and position < end:
        newline = content.index(b"\n", position)
        num_rows -= not is_blank(content[position:newline])
        position = newline + 1
    return position
