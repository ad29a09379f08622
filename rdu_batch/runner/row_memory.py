"""The row in progress, in a small file that a session process and its watcher both map.

Promises: the watcher reads the row without asking the session, also after the session died in the
middle of it, however it died. Does not: hold anything of the row's own text.
"""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rdu_batch.job.records import Row
from rdu_batch.runner.time_spent import TimeSpent

_NO_ROW = -1
_ORDINAL = struct.Struct("<q")
#: When the row was begun, index of its file, its line, and the bytes of its path that follow.
_DETAILS = struct.Struct("<dqqH")
#: A ``TimeSpent``: of the task in progress, so far.
_SPENT = struct.Struct("<dddd")
_SPENT_OFFSET = _ORDINAL.size + _DETAILS.size
_PATH_OFFSET = _SPENT_OFFSET + _SPENT.size
_SIZE_BYTES = 4096
_MOST_PATH_BYTES = _SIZE_BYTES - _PATH_OFFSET


@dataclass(frozen=True)
class RowMark:
    """Which row, where it comes from, and when it was begun."""

    ordinal: int
    file_index: int
    #: 1-based.
    line: int
    #: Path of the input file as the plan has it; cut short where it is longer than a page.
    path: str
    #: Monotonic seconds, which all processes of a machine share.
    started_s: float


class RowMemory:
    """One side's view of the shared file."""

    def __init__(self, path: Path) -> None:
        """Map the file, which ``create`` made."""
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE_BYTES)
        #: Of the row that was begun last, as this side wrote it.
        self._path: str | None = None
        self._path_bytes = 0

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the file, with no row in progress, and map it."""
        path.write_bytes(_ORDINAL.pack(_NO_ROW).ljust(_SIZE_BYTES, b"\0"))
        return cls(path)

    def begin(self, row: Row) -> None:
        """This row is in progress from now on."""
        if row.path is not self._path:  # the same object for all rows of a file
            self._path = row.path
            path = row.path.encode()[:_MOST_PATH_BYTES]
            self._path_bytes = len(path)
            self._memory[_PATH_OFFSET : _PATH_OFFSET + len(path)] = path
        _DETAILS.pack_into(
            self._memory,
            _ORDINAL.size,
            time.monotonic(),
            row.file_index,
            row.line,
            self._path_bytes,
        )
        # Last: a reader that sees the ordinal sees what belongs to it.
        _ORDINAL.pack_into(self._memory, 0, row.ordinal)

    def end(self, spent: TimeSpent) -> None:
        """No row is in progress; ``spent`` is what the task took until here."""
        _SPENT.pack_into(self._memory, _SPENT_OFFSET, *spent)
        _ORDINAL.pack_into(self._memory, 0, _NO_ROW)

    def read(self) -> RowMark | None:
        """The row in progress, None between rows.

        While the session lives the answer may be out of date, or mix two rows: what hangs on it is
        read once more.
        """
        content = self._memory[:]
        (ordinal,) = _ORDINAL.unpack_from(content)
        if ordinal == _NO_ROW:
            return None
        started_s, file_index, line, size = _DETAILS.unpack_from(content, _ORDINAL.size)
        path = content[_PATH_OFFSET : _PATH_OFFSET + size].decode("utf-8", "replace")
        return RowMark(ordinal, file_index, line, path, started_s)

    def spent(self) -> TimeSpent:
        """What the task took until the end of the last row that ended."""
        return TimeSpent(*_SPENT.unpack_from(self._memory, _SPENT_OFFSET))

    def close(self) -> None:
        """Unmap the file."""
        self._memory.close()
