"""The count of a window's lines, and of a run of windows: pure functions of their bytes.

A window knows nothing of its neighbours, so windows can be counted in any order and in parallel;
``line_index.py`` joins the counts, because a line may begin in one window and end in another.
The work is done by numpy and ``bytes`` methods, not by a loop over lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BOM: Final = b"\xef\xbb\xbf"
#: What a blank line may hold.
BLANK_BYTES: Final = b" \t\r"
MOST_LONGEST_ROWS: Final = 5
_SPACE: Final = 32
_LF: Final = 10


class WindowCount(NamedTuple):
    """What one window says about lines.

    Its newlines cut a window into a head (which may continue a line), whole lines, and a tail.
    Without a newline all of it is the head and there is no tail.
    """

    num_bytes: int
    num_newlines: int
    #: Offset in the window of the byte after the first newline; the head's length with its newline.
    head_end: int
    #: Offset in the window of the byte after the last newline.
    tail_start: int
    head_is_blank: bool
    tail_is_blank: bool
    #: Whole lines between head and tail that are not blank.
    num_inner_rows: int
    #: See ``window_digest``.
    digest: str


class LongLine(NamedTuple):
    """A whole line between the head and the tail of a window, not blank."""

    #: Without its newline.
    num_bytes: int
    #: Newlines before it since the window, or the range, began.
    lines_before: int


@dataclass(frozen=True)
class RangeCount:
    """What a run of windows says about lines: small, and made without their neighbours."""

    windows: tuple[WindowCount, ...]
    #: At most ``MOST_LONGEST_ROWS``: longest first, then in their order.
    longest: tuple[LongLine, ...]


def count_window(content: bytes | memoryview, *, is_first: bool) -> WindowCount:
    """Count a window. ``is_first`` says that it begins at offset 0, where a BOM is not content."""
    return WindowLines(content).count(is_first=is_first)


def count_range(windows: Iterable[bytes | memoryview], *, is_first: bool) -> RangeCount:
    """Count a run of windows. ``is_first`` says that the first of them begins at offset 0."""
    counts: list[WindowCount] = []
    longest: list[LongLine] = []
    lines_before = floor_bytes = 0
    for window in windows:
        lines = WindowLines(window)
        counts.append(lines.count(is_first=is_first and not counts))
        longest += (
            LongLine(line.num_bytes, lines_before + line.lines_before)
            for line in lines.longest(floor_bytes, most=MOST_LONGEST_ROWS)
        )
        longest.sort(key=lambda line: (-line.num_bytes, line.lines_before))
        del longest[MOST_LONGEST_ROWS:]
        if len(longest) == MOST_LONGEST_ROWS:
            floor_bytes = longest[-1].num_bytes
        lines_before += counts[-1].num_newlines
    return RangeCount(tuple(counts), tuple(longest))


class WindowLines:
    """The lines of one window, found once for every question asked of them."""

    def __init__(self, content: bytes | memoryview) -> None:
        if len(content) < _NUMPY_BYTES:
            content = bytes(content)
        self._content = content
        #: Offsets of newlines: a numpy array, or a list where a window is too small to pay for one.
        self._newlines: Any = _newlines(content)

    def count(self, *, is_first: bool) -> WindowCount:
        """See ``count_window``."""
        content = self._content
        num_newlines = len(self._newlines)
        head_end = int(self._newlines[0]) + 1 if num_newlines else len(content)
        tail_start = int(self._newlines[-1]) + 1 if num_newlines else len(content)
        head = bytes(content[: head_end - 1 if num_newlines else head_end])
        if is_first:
            head = head.removeprefix(BOM)
        num_inner = max(0, num_newlines - 1)
        return WindowCount(
            num_bytes=len(content),
            num_newlines=num_newlines,
            head_end=head_end,
            tail_start=tail_start,
            head_is_blank=is_blank(head),
            tail_is_blank=is_blank(bytes(content[tail_start:])),
            num_inner_rows=num_inner - sum(1 for _ in self._blank_lines()),
            digest=window_digest(content),
        )

    def longest(
        self, floor_bytes: int, *, most: int, num_rows: int | None = None
    ) -> list[LongLine]:
        """Find the longest whole lines that are longer than a floor; blank lines do not count.

        Args:
            floor_bytes: no line of this many bytes or fewer is wanted.
            most: how many are wanted.
            num_rows: look only at the first lines that hold this many rows; None for all.

        Returns:
            At most ``most`` lines, longest first, then in their order.
        """
        newlines = self._newlines
        last = len(newlines) - 1 if num_rows is None else self._lines_of(num_rows)
        if isinstance(newlines, list):
            lengths = ((newlines[at + 1] - newlines[at] - 1, at) for at in range(last))
            found = [line for line in lengths if line[0] > floor_bytes]
        elif last > 0:
            all_lengths = newlines[1 : last + 1] - newlines[:last] - 1
            found = [
                (int(all_lengths[at]), at)
                for at in _longest_first(all_lengths, floor_bytes, most).tolist()
            ]
        else:
            found = []
        found.sort(key=lambda line: (-line[0], line[1]))
        longest: list[LongLine] = []
        for num_bytes, at in found:
            if len(longest) == most:
                break
            if not is_blank(self._line(at)):
                longest.append(LongLine(num_bytes, at + 1))
        # A blank line took a place of those that were looked at: look at all.
        if len(longest) < min(most, len(found)) and not isinstance(newlines, list):
            return self._longest_of_all(floor_bytes, most, last)
        return longest

    def _longest_of_all(self, floor_bytes: int, most: int, last: int) -> list[LongLine]:
        """The same with a Python step a line; for windows with very long blank lines."""
        found = [
            LongLine(num_bytes, at + 1)
            for at in range(last)
            if (num_bytes := int(self._newlines[at + 1] - self._newlines[at]) - 1) > floor_bytes
            and not is_blank(self._line(at))
        ]
        return sorted(found, key=lambda line: (-line.num_bytes, line.lines_before))[:most]

    def _lines_of(self, num_rows: int) -> int:
        """How many whole lines the first rows of this many take."""
        blank = set(self._blank_lines())
        last = 0
        while num_rows > 0 and last < len(self._newlines) - 1:
            num_rows -= last not in blank
            last += 1
        return last

    def _line(self, at: int) -> bytes:
        return bytes(self._content[int(self._newlines[at]) + 1 : int(self._newlines[at + 1])])

    def _blank_lines(self) -> Iterator[int]:
        """Whole lines that are blank, by their number from 0."""
        newlines = self._newlines
        if isinstance(newlines, list):
            candidates = range(len(newlines) - 1)
        else:
            candidates = _blank_begins(self._content, newlines).tolist()
        for at in candidates:
            if is_blank(self._line(at)):
                yield at


def window_digest(content: bytes | memoryview) -> str:
    """Return the digest by which a window is pinned: 16 hex digits of XXH3.

    It tells what changed, in a tenth of the time of a sha256; it is no proof against someone who
    wants two windows to look alike.
    """
    return xxhash.xxh3_64_hexdigest(content)


def is_blank(piece: bytes) -> bool:
    """Say whether a piece of a line holds nothing but blanks."""
    # Its first byte tells nearly always; only then is the whole of it looked at, and copied.
    return not piece or (piece[0] <= _SPACE and not piece.strip(BLANK_BYTES))


#: Below this, calling numpy costs more than it saves.
_NUMPY_BYTES: Final = 4096


def _newlines(content: bytes | memoryview) -> Any:
    if not isinstance(content, bytes) or len(content) >= _NUMPY_BYTES:
        return _newlines_of_many(content)
    found = []
    at = content.find(b"\n")
    while at >= 0:
        found.append(at)
        at = content.find(b"\n", at + 1)
    return found


def _newlines_of_many(content: bytes | memoryview) -> Any:
    import numpy as np

    return np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == _LF)


def _blank_begins(content: bytes | memoryview, newlines: Any) -> Any:
    """Numbers of the whole lines whose first byte may be a blank line's."""
    import numpy as np

    return np.flatnonzero(np.frombuffer(content, dtype=np.uint8)[newlines[:-1] + 1] <= _SPACE)


def _longest_first(lengths: Any, floor_bytes: int, most: int) -> Any:
    """Numbers of at least the ``most`` longest lines above the floor, with all as long as those."""
    import numpy as np

    above = np.flatnonzero(lengths > floor_bytes)
    if len(above) > most:
        least = np.partition(lengths[above], len(above) - most)[len(above) - most]
        above = above[lengths[above] >= least]
        # Many of one length: the first of them are enough; blank ones are seen to by the caller.
        longer = above[lengths[above] > least]
        above = np.concatenate((longer, above[lengths[above] == least][:most]))
    return above
