"""The index of a plan as pages: objects of some MiB, each named by the digest of its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rdu_batch.job import run_paths
from rdu_batch.job.plan import IndexPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.job.plan import InputFile

_MAX_PAGE_FILES = 1000
_MAX_PAGE_BYTES = 4 * 2**20


@dataclass
class PageWriter:
    """Collects indexed files into pages.

    A page's name holds its digest, so planners that race and see different inputs never write over
    each other's pages.
    """

    take_page: Callable[[str, bytes], object] | None = None
    pages: list[IndexPage] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    _lines: list[bytes] = field(default_factory=list)
    _num_bytes: int = 0
    _num_rows: int = 0
    _first_file: int = 0
    _first_row: int = 0

    def add(self, file: InputFile) -> None:
        """Take the next file."""
        line = file.to_line()
        self._lines.append(line)
        self._num_bytes += len(line)
        self._num_rows += file.num_rows
        if len(self._lines) >= _MAX_PAGE_FILES or self._num_bytes >= _MAX_PAGE_BYTES:
            self.end_page()

    def end_page(self) -> None:
        """End the page that is begun, if there is one."""
        if not self._lines:
            return
        content = b"".join(self._lines)
        sha256 = hashlib.sha256(content).hexdigest()
        stem, dot, suffix = run_paths.index_page(len(self.pages)).rpartition(".")
        self.pages.append(
            IndexPage(
                name=f"{stem}-{sha256[:16]}{dot}{suffix}",
                sha256=sha256,
                first_file=self._first_file,
                num_files=len(self._lines),
                first_row=self._first_row,
                num_rows=self._num_rows,
            )
        )
        if self.take_page is not None:
            self.take_page(self.pages[-1].name, content)
        else:
            self.contents.append(content)
        self._first_file += len(self._lines)
        self._first_row += self._num_rows
        self._lines, self._num_bytes, self._num_rows = [], 0, 0
