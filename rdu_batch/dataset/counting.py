"""Counting the inputs of a plan: what is to be counted, cut into tasks that any process can do.

A task is a part of a large file, or many small files. Its result is small, says what went wrong
rather than raise, and depends on the task alone: so the tasks can be done in this process, in
others or on a cluster, and give the same index. A file that must be decoded is one part, which is
also where it is cut anew (``recut.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from rdu_batch.dataset.decoding import DamagedContentError
from rdu_batch.dataset.formats import FORMATS
from rdu_batch.dataset.logical_stream import (
    check_not_utf_16,
    logical_pieces,
    read_bytes_of,
    stored_pieces,
    views_of,
    windows_of,
)
from rdu_batch.dataset.range_counter import RangeCount, count_range
from rdu_batch.dataset.recut import PieceWriter
from rdu_batch.errors import InputError, ObjectMissing, StoreError
from rdu_batch.job.plan import MAX_DECODED_BYTES, WINDOW_BYTES, Window
from rdu_batch.storage.output_store import open_output
from rdu_batch.storage.store import ObjectStat, Store, open_store

if TYPE_CHECKING:
    from rdu_batch.dataset.listing import ListedFile

#: Windows of a part of a large file; also about the bytes of a task, in windows.
WINDOWS_PER_PART: Final = 32
_MAX_PARTS_PER_TASK: Final = 512
#: What opening a file costs, in bytes that could be counted in that time.
_FILE_COST_BYTES: Final = 1 << 16


class FilePart(NamedTuple):
    """Bytes ``[start, end)`` of a stored file; all of it where it must be decoded."""

    file_index: int
    folder: str
    name: str
    url: str
    format: str
    stat: ObjectStat
    start: int
    end: int


@dataclass(frozen=True)
class CountTask:
    """Parts to count, in their order."""

    parts: tuple[FilePart, ...]
    window_bytes: int = WINDOW_BYTES
    #: The output that large decoded files are cut anew into; None where nothing may be written.
    recut_url: str | None = None
    max_decoded_bytes: int = MAX_DECODED_BYTES


@dataclass(frozen=True)
class PartCount:
    """What a part says. What is counted before a problem counts, for the message."""

    counted: RangeCount
    #: Windows of a table, which are no windows of lines.
    groups: tuple[Window, ...] = ()
    #: What is wrong with the content, and where.
    damage: str | None = None
    #: Why it cannot be read at all: a whole message.
    failure: str | None = None


#: Does tasks, in any order and anywhere; gives their results in the order of the tasks.
CountRanges = Callable[[Iterable[CountTask]], Iterable[tuple[PartCount, ...]]]


def count_here(tasks: Iterable[CountTask]) -> Iterator[tuple[PartCount, ...]]:
    """Do tasks in this process, one after the other."""
    return map(count_task, tasks)


def tasks_of(
    files: Iterable[ListedFile],
    *,
    first_index: int = 0,
    window_bytes: int = WINDOW_BYTES,
    recut_url: str | None = None,
    max_decoded_bytes: int = MAX_DECODED_BYTES,
) -> Iterator[CountTask]:
    """Cut files into tasks of about the same work, in order."""
    part_bytes = window_bytes * WINDOWS_PER_PART
    parts: list[FilePart] = []
    cost_bytes = 0
    for index, file in enumerate(files, first_index):
        for part in _parts_of(file, index, part_bytes):
            parts.append(part)
            cost_bytes += part.end - part.start + _FILE_COST_BYTES
            if cost_bytes >= part_bytes or len(parts) == _MAX_PARTS_PER_TASK:
                yield CountTask(tuple(parts), window_bytes, recut_url, max_decoded_bytes)
                parts, cost_bytes = [], 0
    if parts:
        yield CountTask(tuple(parts), window_bytes, recut_url, max_decoded_bytes)


def _parts_of(file: ListedFile, index: int, part_bytes: int) -> Iterator[FilePart]:
    size_bytes = file.size_bytes
    step = part_bytes if FORMATS[file.format].is_stored_as_read else max(size_bytes, 1)
    stat = ObjectStat(size_bytes, file.etag)
    for start in range(0, max(size_bytes, 1), step):
        end = min(start + step, size_bytes)
        yield FilePart(index, file.folder, file.name, file.url, file.format, stat, start, end)


def count_task(task: CountTask) -> tuple[PartCount, ...]:
    """Count all parts of a task."""
    return tuple(count_part(part, task) for part in task.parts)


_NOTHING: Final = RangeCount((), ())
_Window = bytes | memoryview
_Consume = Callable[[Iterable[_Window]], RangeCount]


def count_range_of(part: FilePart) -> _Consume:
    """The usual count of a part's windows."""
    return functools.partial(count_range, is_first=part.start == 0)


def count_part(part: FilePart, task: CountTask, consume: _Consume | None = None) -> PartCount:
    """Count a part of a task; ``consume`` takes its windows in place of the usual count."""
    consume = consume or count_range_of(part)
    try:
        store = _store(part.folder)
        if _is_one_window(part, task):
            # Nearly every file of a million: no streams for one window.
            content, after = store.read_all_with_stat(part.name, part.end)
            counted = _of_windows([content] if content else [], True, consume)
        else:
            counted = _counted(store, part, task, consume)
            after = store.stat(part.name)
    except ObjectMissing:
        failure = (
            f"{part.url} was listed as an input but is not there; "
            "run again when the inputs are settled"
        )
        return PartCount(_NOTHING, failure=failure)
    except InputError as error:
        return PartCount(_NOTHING, failure=f"{part.url}: {error}")
    except StoreError as error:
        return PartCount(_NOTHING, failure=_why_unreadable(part, error))
    if after != part.stat:
        return PartCount(_NOTHING, failure=_changed(part, after))
    return counted


def _is_one_window(part: FilePart, task: CountTask) -> bool:
    """Whether a part is a whole file of text, and so small."""
    is_whole = part.start == 0 and part.end == part.stat.size_bytes
    return is_whole and part.end <= task.window_bytes and FORMATS[part.format].is_stored_as_read


def _why_unreadable(part: FilePart, error: StoreError) -> str:
    """A file that was cut short meanwhile is told as a change, not as a failed read."""
    try:
        after = _store(part.folder).stat(part.name)
    except StoreError:
        after = part.stat
    if after != part.stat:
        return _changed(part, after)
    return f"the input {part.url} cannot be read: {error}"


def _changed(part: FilePart, after: ObjectStat) -> str:
    return (
        f"{part.url} changed while it was indexed: found {after}, listed as {part.stat}; "
        "run again when the inputs are settled"
    )


@functools.lru_cache(maxsize=4)
def _store(folder: str) -> Store:
    return open_store(folder)


def _counted(store: Store, part: FilePart, task: CountTask, consume: _Consume) -> PartCount:
    form = FORMATS[part.format]
    if form.content == "table":
        from rdu_batch.dataset.table import index_table

        try:
            groups = index_table(store, part.name, part.stat.size_bytes)
        except DamagedContentError as error:
            return PartCount(_NOTHING, damage=str(error))
        return PartCount(_NOTHING, groups=groups)
    read_bytes = max(read_bytes_of(store) // task.window_bytes, 1) * task.window_bytes
    pieces = stored_pieces(store, part.name, part.start, part.end, read_bytes)
    if form.is_stored_as_read:
        views = views_of(pieces, task.window_bytes)
        return _of_windows(views, part.start == 0, consume)
    windows = windows_of(logical_pieces(pieces, form), task.window_bytes)
    output = open_output(task.recut_url) if task.recut_url is not None else None
    writer = PieceWriter(output, part.file_index, task.max_decoded_bytes)
    counted = _of_windows(_also(windows, writer), False, consume)
    if counted.damage is None:
        writer.finish()
    return counted


def _also(windows: Iterable[bytes], writer: PieceWriter) -> Iterator[bytes]:
    for window in windows:
        writer.add(window)
        yield window


def _of_windows(windows: Iterable[_Window], check_encoding: bool, consume: _Consume) -> PartCount:
    damage: list[str] = []
    counted = consume(_until_damaged(windows, damage, check_encoding))
    return PartCount(counted, damage=damage[0] if damage else None)


def _until_damaged(
    windows: Iterable[_Window], damage: list[str], check_encoding: bool
) -> Iterator[_Window]:
    """Yield windows; an error of the content ends them and is noted."""
    try:
        for index, window in enumerate(windows):
            if check_encoding and index == 0:
                check_not_utf_16(bytes(window[:4]))
            yield window
    except DamagedContentError as error:
        damage.append(str(error))
