"""From listed files to their indexes, through tasks that any process can do, or until a limit."""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rdu_batch.dataset.counting import (
    CountRanges,
    CountTask,
    PartCount,
    count_here,
    count_part,
    tasks_of,
)
from rdu_batch.dataset.line_index import LineIndexer, LongestRows
from rdu_batch.dataset.range_counter import BOM, RangeCount
from rdu_batch.errors import InputError
from rdu_batch.job.plan import (
    MAX_DECODED_BYTES,
    WINDOW_BYTES,
    InputFile,
    Window,
    digest_of_windows,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rdu_batch.dataset.counting import FilePart
    from rdu_batch.dataset.listing import ListedFile

_REMEDY: Final = (
    "repair it or fetch it again, or leave it out with a narrower pattern or several URLs"
)
#: Bad files that are told one by one.
_MAX_TOLD: Final = 20


@dataclass(frozen=True)
class Tasks:
    """Files to index, and how."""

    files: Sequence[ListedFile]
    window_bytes: int = WINDOW_BYTES
    #: The output that large decoded files are cut anew into; None where nothing may be written.
    recut_url: str | None = None
    max_decoded_bytes: int = MAX_DECODED_BYTES

    def of(self, files: Iterable[ListedFile], first_index: int = 0) -> Iterator[CountTask]:
        """The tasks of some of the files. Raises ValueError: a BOM would not lie in one window."""
        if self.window_bytes < len(BOM):
            raise ValueError(f"window_bytes is {self.window_bytes}, wanted at least {len(BOM)}")
        return tasks_of(
            files,
            first_index=first_index,
            window_bytes=self.window_bytes,
            recut_url=self.recut_url,
            max_decoded_bytes=self.max_decoded_bytes,
        )


def index_files(
    tasks: Tasks, longest: LongestRows, count_ranges: CountRanges = count_here
) -> Iterator[InputFile]:
    """Yield the index of each file in order.

    Args:
        tasks: the files.
        longest: takes in the longest rows of all files.
        count_ranges: where the tasks are done.

    Raises:
        InputError: files went away, changed while they were read, are damaged, or cannot be read:
            all of them together, after the last file. Files that cannot be read at all end the
            counting once there are many: a store that refuses each is not asked for a million.
    """
    parts: deque[FilePart] = deque()

    def noted() -> Iterator[CountTask]:
        for task in tasks.of(tasks.files):
            parts.extend(task.parts)
            yield task

    joiner = _Joiner(tasks, longest, None)
    bad = _BadFiles()
    for counts in count_ranges(noted()):
        for count in counts:
            part = parts.popleft()
            if part.file_index == bad.last_index:
                continue
            try:
                indexed = joiner.add(part, count)
            except InputError as error:
                joiner = _Joiner(tasks, longest, None)
                bad.add(part, error, is_unread=count.failure is not None)
                continue
            # Of a plan that will not be made nothing more is handed on.
            if indexed is not None and bad.last_index is None:
                yield indexed
    bad.refuse()


class _BadFiles:
    """What is wrong with which files, in their order."""

    def __init__(self) -> None:
        #: Of the last bad file; None while all are good.
        self.last_index: int | None = None
        self._told: list[str] = []
        self._num_bad = self._num_unread = 0

    def add(self, part: FilePart, error: InputError, *, is_unread: bool) -> None:
        """Note a bad file. Raises InputError: too many could not be read at all."""
        self.last_index = part.file_index
        self._num_bad += 1
        self._num_unread += is_unread
        if self._num_bad <= _MAX_TOLD:
            self._told.append(str(error))
        if self._num_unread == _MAX_TOLD:
            self.refuse(is_all=False)

    def refuse(self, *, is_all: bool = True) -> None:
        """Raises InputError: there are bad files."""
        if not self._num_bad:
            return
        if len(self._told) == 1:
            raise InputError(self._told[0])
        lines = [f"  {one.removesuffix(f'; {_REMEDY}')}" for one in self._told]
        more = self._num_bad - len(self._told)
        if more:
            lines.append(f"  and {more:,} more")
        if not is_all:
            lines.append("  files after these were not looked at")
        found = f"{self._num_bad:,} inputs are damaged or cannot be read"
        raise InputError("\n".join((f"{found}; of each, {_REMEDY}:", *lines)))


def index_until(tasks: Tasks, longest: LongestRows, num_rows: int) -> Iterator[InputFile]:
    """Yield the index of each file up to the one with the last of ``num_rows`` rows.

    No file after that one is read. ``longest`` takes in rows of the first ``num_rows`` only.

    Raises:
        InputError: as ``index_files``.
    """
    for index, file in enumerate(tasks.files):
        if num_rows <= 0:
            return
        joiner = _Joiner(tasks, longest, num_rows)
        for task in tasks.of([file], index):
            for part in task.parts:
                indexer = joiner.indexer_of(part)
                count = count_part(part, task, functools.partial(_add_windows, indexer))
                indexed = joiner.add(part, count)
                if indexed is not None:
                    num_rows -= indexed.num_rows
                    yield indexed


def index_file(
    listed: ListedFile,
    index: int,
    longest: LongestRows,
    *,
    row_limit: int | None = None,
    window_bytes: int = WINDOW_BYTES,
) -> InputFile:
    """Index one file, here. ``row_limit``: rows after so many are left out of ``longest``.

    Raises:
        InputError: as ``index_files``.
    """
    joiner = _Joiner(Tasks([listed], window_bytes), longest, row_limit, first_index=index)
    indexed = None
    for task in joiner.tasks.of([listed], index):
        for part in task.parts:
            consume = None
            if row_limit is not None:
                consume = functools.partial(_add_windows, joiner.indexer_of(part))
            indexed = joiner.add(part, count_part(part, task, consume))
    if indexed is None:
        raise ValueError(f"{listed.url}: found no part that ends the file; wanted one")
    return indexed


def _add_windows(indexer: LineIndexer, windows: Iterable[bytes | memoryview]) -> RangeCount:
    for window in windows:
        indexer.add_window(window)
    return RangeCount((), ())


class _Joiner:
    """Takes the counts of parts in order, and gives each file's index with its last part."""

    def __init__(
        self, tasks: Tasks, longest: LongestRows, row_limit: int | None, first_index: int = 0
    ) -> None:
        self.tasks = tasks
        self._longest = longest
        self._row_limit = row_limit
        self._first_index = first_index
        self._indexer: LineIndexer | None = None

    def indexer_of(self, part: FilePart) -> LineIndexer:
        """The indexer of the part's file."""
        if self._indexer is None:
            path = self._file(part).path
            self._indexer = LineIndexer(part.file_index, path, self._longest, self._row_limit)
        return self._indexer

    def add(self, part: FilePart, count: PartCount) -> InputFile | None:
        """Take the next count.

        Raises:
            InputError: it says what is wrong with the file.
        """
        if count.failure is not None:
            raise InputError(count.failure)
        indexer = self.indexer_of(part)
        indexer.add_range(count.counted)
        if count.damage is not None:
            raise InputError(
                f"{part.url} is damaged {count.damage}; {indexer.num_rows} good rows come before "
                f"that; {_REMEDY}"
            )
        if part.end < part.stat.size_bytes:
            return None
        self._indexer = None
        return _input_file(self._file(part), part, indexer, count.groups)

    def _file(self, part: FilePart) -> ListedFile:
        return self.tasks.files[part.file_index - self._first_index]


def _input_file(
    listed: ListedFile, part: FilePart, indexer: LineIndexer, groups: tuple[Window, ...]
) -> InputFile:
    windows = groups or indexer.finish()
    num_records = sum(group.num_rows for group in groups)
    return InputFile(
        index=part.file_index,
        url=listed.url,
        path=listed.path,
        format=listed.format,
        size_bytes=listed.size_bytes,
        etag=listed.etag,
        logical_bytes=num_records if groups else indexer.num_bytes,
        windows_sha256=digest_of_windows(windows),
        num_lines=num_records or indexer.num_lines,
        num_rows=num_records or indexer.num_rows,
        windows=windows,
    )
