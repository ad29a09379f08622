"""A JSON document to lines: the elements of an array, or one object, each on a line of its own.

Follows strings and depth only, in bounded memory; whether an element is good JSON is for the parser
of rows, so that a bad one is a dead letter like any bad line. Each element keeps its exact text but
for line ends: between tokens they become spaces. In a string, where JSON has none, LF becomes a
vertical tab, which JSON has not either: the element stays as wrong as it was.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rdu_batch.dataset.decoding import DamagedContentError
from rdu_batch.dataset.range_counter import BOM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NOT_BLANK: Final = re.compile(rb"[^ \t\r\n]")
#: A whole string at once where it is all there; else its opening quote.
_IN_ELEMENT: Final = re.compile(rb'"[^"\\\n]*+"|["{}\[\]\n\r]')
_IN_SCALAR: Final = re.compile(rb'"[^"\\\n]*+"|[",\]\n\r]')
#: A container with at most three levels of others in it, and the comma after it: most elements of
#: most files, in one step. Without line ends in strings, which only the slow way tells from others.
_PLAIN: Final = rb'[^"{}\[\]]++|"[^"\\\r\n]*+(?:\\[^\r\n][^"\\\r\n]*+)*+"'
_LEVEL_1: Final = rb"[{\[](?:" + _PLAIN + rb")*+[}\]]"
_LEVEL_2: Final = rb"[{\[](?:" + _PLAIN + rb"|" + _LEVEL_1 + rb")*+[}\]]"
_LEVEL_3: Final = rb"[{\[](?:" + _PLAIN + rb"|" + _LEVEL_2 + rb")*+[}\]]"
_WHOLE_ELEMENT: Final = re.compile(
    rb"[ \t\r\n]*+([{\[](?:" + _PLAIN + rb"|" + _LEVEL_3 + rb")*+[}\]])[ \t\r\n]*+,"
)
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")
_IN_STRING: Final = re.compile(rb'["\\\n]')


def json_elements(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a document in pieces, given the document in pieces of any size.

    Raises:
        DamagedContentError: the document is no array or object, is cut short, or something follows
            it; after the lines before that.
    """
    splitter = _Splitter()
    head = b""
    for piece in pieces:
        if splitter.offset == 0 and len(head) < len(BOM):
            head += piece
            if len(head) < len(BOM):
                continue
            piece, skipped = head.removeprefix(BOM), head.startswith(BOM)  # noqa: PLW2901
            splitter.offset = len(BOM) if skipped else 0
            head = BOM
        yield from splitter.feed(piece)
    if head and head != BOM:
        yield from splitter.feed(head)
    splitter.finish()


class _Splitter:
    def __init__(self) -> None:
        self.offset = 0
        self._step = self._before
        self._depth = 0
        #: Scalars end with what follows them; a container with its own bracket.
        self._is_scalar = False
        self._is_array = False
        self._in_string = False
        self._is_escaped = False
        self._lines: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Take the next piece; lines are given even where it turns out to be damaged."""
        at = 0
        try:
            while at < len(piece):
                at = self._step(piece, at)
        finally:
            lines, self._lines = b"".join(self._lines), []
            if lines:
                yield lines
        self.offset += len(piece)

    def finish(self) -> None:
        """The document has ended: it must be whole."""
        if self._step != self._after:
            found = "the file is empty" if self._step == self._before else "the JSON is cut short"
            raise DamagedContentError(found, self.offset, "content")

    def _before(self, piece: bytes, at: int) -> int:
        begin = _NOT_BLANK.search(piece, at)
        if begin is None:
            return len(piece)
        if begin[0] == b"[":
            self._is_array = True
            self._step = self._first_element
            return begin.end()
        if begin[0] != b"{":
            self._refuse(piece, begin.start(), "wanted an array of objects, or one object")
        return self._begin(begin.start())

    def _first_element(self, piece: bytes, at: int) -> int:
        return self._next_element(piece, at, may_end=True)

    def _another_element(self, piece: bytes, at: int) -> int:
        return self._next_element(piece, at, may_end=False)

    def _next_element(self, piece: bytes, at: int, *, may_end: bool) -> int:
        while whole := _WHOLE_ELEMENT.match(piece, at):
            self._lines.append(whole[1].translate(_LINE_ENDS))
            self._lines.append(b"\n")
            self._step = self._another_element
            may_end = False
            at = whole.end()
        begin = _NOT_BLANK.search(piece, at)
        if begin is None:
            return len(piece)
        if begin[0] == b"]" and may_end:
            self._step = self._after
            return begin.end()
        if begin[0] in b",]}:":
            self._refuse(piece, begin.start(), "wanted an element of the array")
        self._is_scalar = begin[0] not in b"{["
        return self._begin(begin.start())

    def _begin(self, at: int) -> int:
        self._step = self._element
        self._depth = 0
        return at

    def _element(self, piece: bytes, at: int) -> int:
        """Within an element, up to its end or the end of the piece."""
        find = _IN_SCALAR if self._is_scalar else _IN_ELEMENT
        lines = self._lines
        while at < len(piece):
            if self._in_string:
                at = self._string(piece, at)
                continue
            mark = find.search(piece, at)
            if mark is None:
                lines.append(piece[at:])
                return len(piece)
            token = mark[0]
            if token in b"\r\n":
                lines.append(piece[at : mark.start()] + b" ")
                at = mark.end()
                continue
            if self._is_scalar and token in b",]":
                lines.append(piece[at : mark.start()] + b"\n")
                self._step = self._between
                return mark.start()
            lines.append(piece[at : mark.end()])
            at = mark.end()
            if token == b'"':
                self._in_string = True
            elif token in b"{[":
                self._depth += 1
            elif token in b"}]":
                self._depth -= 1
                if self._depth == 0:
                    lines.append(b"\n")
                    self._step = self._between if self._is_array else self._after
                    return at
        return at

    def _string(self, piece: bytes, at: int) -> int:
        """Within a string that is long, escaped or cut by the end of a piece."""
        if self._is_escaped:
            self._is_escaped = False
            self._lines.append(b"\x0b" if piece[at : at + 1] == b"\n" else piece[at : at + 1])
            return at + 1
        mark = _IN_STRING.search(piece, at)
        if mark is None:
            self._lines.append(piece[at:])
            return len(piece)
        if mark[0] == b"\n":
            self._lines.append(piece[at : mark.start()] + b"\x0b")
            return mark.end()
        self._lines.append(piece[at : mark.end()])
        self._is_escaped = mark[0] == b"\\"
        self._in_string = self._is_escaped
        return mark.end()

    def _between(self, piece: bytes, at: int) -> int:
        mark = _NOT_BLANK.search(piece, at)
        if mark is None:
            return len(piece)
        if mark[0] == b",":
            self._step = self._another_element
        elif mark[0] == b"]":
            self._step = self._after
        else:
            self._refuse(piece, mark.start(), 'wanted "," or "]"')
        return mark.end()

    def _after(self, piece: bytes, at: int) -> int:
        mark = _NOT_BLANK.search(piece, at)
        if mark is not None:
            self._refuse(
                piece, mark.start(), "wanted nothing after the document (one a line: .jsonl)"
            )
        return len(piece)

    def _refuse(self, piece: bytes, at: int, wanted: str) -> None:
        found = piece[at : at + 1].decode("utf-8", "backslashreplace")
        raise DamagedContentError(f"found {found!r}; {wanted}", self.offset + at, "content")
