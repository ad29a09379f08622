"""The count of one window of a file: a pure function of its bytes.

A window knows nothing of its neighbours, so windows can be counted in any order and in parallel;
``line_index.py`` joins the counts, because a line may begin in one window and end in another.
The work is done by ``bytes`` methods and one regular expression, not by a loop over lines.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

BOM = b"\xef\xbb\xbf"
#: What a blank line may hold.
BLANK_BYTES = b" \t\r"
_BLANK_LINE = re.compile(rb"\n[ \t\r]*(?=\n)")
_BLANK_STARTS = (b"\n\n", b"\n\r", b"\n ", b"\n\t")


@dataclass(frozen=True)
class WindowCount:
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
    #: First 16 hex digits of the window's sha256.
    sha256: str


def count_window(content: bytes, *, is_first: bool) -> WindowCount:
    """Count a window. ``is_first`` says that it begins at offset 0, where a BOM is not content."""
    num_newlines = content.count(b"\n")
    head_end = content.find(b"\n") + 1 if num_newlines else len(content)
    tail_start = content.rfind(b"\n") + 1 if num_newlines else len(content)
    head = content[:head_end].rstrip(b"\n")
    if is_first:
        head = head.removeprefix(BOM)
    num_inner = max(0, num_newlines - 1)
    return WindowCount(
        num_bytes=len(content),
        num_newlines=num_newlines,
        head_end=head_end,
        tail_start=tail_start,
        head_is_blank=is_blank(head),
        tail_is_blank=is_blank(content[tail_start:]),
        num_inner_rows=num_inner - _count_blank_lines(content, head_end, tail_start),
        sha256=window_sha256(content),
    )


def window_sha256(content: bytes) -> str:
    """Return the short digest by which a window is pinned."""
    return hashlib.sha256(content).hexdigest()[:16]


def is_blank(piece: bytes) -> bool:
    """Say whether a piece of a line holds nothing but blanks."""
    return not piece.strip(BLANK_BYTES)


def longer_lines(
    content: bytes, start: int, end: int, floor_bytes: int, *, most: int
) -> list[tuple[int, int]]:
    """Find the longest whole lines of ``content[start:end]`` that are longer than a floor.

    ``start`` and ``end`` follow a newline, so ``start`` is not 0. Blank lines do not count.
    The search runs inside the regular expression, so shorter lines cost no Python step.

    Returns:
        At most ``most`` pairs (bytes without the newline, offset), longest first, then by offset.
    """
    found: list[tuple[int, int]] = []
    floor = floor_bytes
    longer = re.compile(rb"\n[^\n]{%d,}" % (floor_bytes + 1))
    for match in longer.finditer(content, start - 1, end):
        offset = match.start() + 1
        line_bytes = match.end() - offset
        if line_bytes <= floor or is_blank(content[offset : match.end()]):
            continue
        found.append((line_bytes, offset))
        found.sort(key=lambda line: (-line[0], line[1]))
        del found[most:]
        if len(found) == most:
            floor = max(floor, found[-1][0])
    return found


def _count_blank_lines(content: bytes, start: int, end: int) -> int:
    """Count the blank lines of ``content[start:end]``, which begins and ends after a newline."""
    if end <= start or not any(mark in content for mark in _BLANK_STARTS):
        return 0
    return len(_BLANK_LINE.findall(content, start - 1, end))
