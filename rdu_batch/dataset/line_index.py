"""The line index of one stream, made window by window in bounded memory.

Joins the counts of ``range_counter.py``: a line belongs to the window in which its first byte lies,
wherever it ends. Notes the longest rows on the way. A line is never held: its length is no limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdu_batch.dataset.range_counter import MOST_LONGEST_ROWS, WindowLines
from rdu_batch.job.plan import LongestRow, Window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rdu_batch.dataset.range_counter import LongLine, RangeCount, WindowCount


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
    """Takes the windows of one stream in order, or counts of them, and gives its index.

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
        self._newlines_before = 0
        self._line_counts: list[int] = []
        self._row_counts: list[int] = []
        self._first_offsets: list[int] = []
        self._digests: list[str] = []
        # The line that began and has not ended: its offset, its window, and whether it is blank.
        self._open_offset: int | None = None
        self._open_window = 0
        self._open_is_blank = True

    @property
    def num_bytes(self) -> int:
        """Bytes of the windows so far."""
        return self._offset

    def add_window(self, content: bytes | memoryview) -> None:
        """Take the next window; all but the last have the same size, none is empty."""
        lines = WindowLines(content)
        count = lines.count(is_first=self._offset == 0)
        num_rows = None
        if self._row_limit is not None:
            # The line that is open now ends in this window, before its whole lines begin.
            is_blank = count.head_is_blank and (self._open_offset is None or self._open_is_blank)
            num_rows = max(0, self._row_limit - self.num_rows - (not is_blank))
        longest = lines.longest(
            self._longest.floor_bytes, most=self._longest.most, num_rows=num_rows
        )
        before = self._newlines_before
        self._add(count)
        self._offer_all(longest, before)

    def add_range(self, counted: RangeCount) -> None:
        """Take the next windows by their counts. Not with a ``row_limit``."""
        before = self._newlines_before
        for count in counted.windows:
            self._add(count)
        self._offer_all(counted.longest, before)

    def _add(self, count: WindowCount) -> None:
        base = self._offset
        self._line_counts.append(0)
        self._row_counts.append(0)
        self._first_offsets.append(-1)
        self._digests.append(count.digest)
        if self._open_offset is None:
            self._begin_line(base)
        self._open_is_blank = self._open_is_blank and count.head_is_blank
        if count.num_newlines:
            self._end_line(base + count.head_end - 1)
            num_inner = count.num_newlines - 1
            if num_inner:
                self._note_begin(base + count.head_end, num_inner)
                self._row_counts[-1] += count.num_inner_rows
                self.num_lines += num_inner
                self.num_rows += count.num_inner_rows
            if count.tail_start < count.num_bytes:
                self._begin_line(base + count.tail_start)
                self._open_is_blank = count.tail_is_blank
        self._offset += count.num_bytes
        self._newlines_before += count.num_newlines

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

    def _offer_all(self, lines: Iterable[LongLine], newlines_before: int) -> None:
        for line in lines:
            self._offer(line.num_bytes, newlines_before + line.lines_before + 1)

    def _offer(self, num_bytes: int, line: int) -> None:
        if num_bytes > self._longest.floor_bytes:
            self._longest.offer(LongestRow(self._file_index, line, self._path, num_bytes))
