"""The logical stream of an input: what its stored bytes mean, as lines, in windows.

Of ``.jsonl`` and ``.txt`` it is the file's bytes, decompressed where the file is compressed; of
``.json`` the elements of the document, one a line. Reads 8 MiB at a time, the next while the last
is at work; 1 MiB of a local file. Memory: two such reads and two windows, whatever the file.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from rdu_batch.dataset.decoding import DamagedContentError, decompressed
from rdu_batch.dataset.json_elements import json_elements
from rdu_batch.storage.local_store import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rdu_batch.dataset.formats import InputFormat
    from rdu_batch.storage.store import Store

#: Bytes fetched by one ranged read.
READ_BYTES: Final = 8 << 20
#: The same of a local file: what was just read is still near the processor.
LOCAL_READ_BYTES: Final = 1 << 20
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


def read_bytes_of(store: Store) -> int:
    """Bytes to fetch by one ranged read of a store."""
    return LOCAL_READ_BYTES if store.protocol == LocalStore.protocol else READ_BYTES


def stored_pieces(
    store: Store, name: str, start: int, end: int, read_bytes: int | None = None
) -> Iterator[bytes]:
    """Yield bytes ``[start, end)`` of a file as ranged reads, the next one fetched ahead."""
    starts = range(start, end, read_bytes or read_bytes_of(store))
    # Of a local file the kernel reads ahead; a thread's handing over costs more than it saves.
    if len(starts) == 1 or store.protocol == LocalStore.protocol:
        for begin in starts:
            yield store.read_range(name, begin, min(begin + starts.step, end))
        return
    if not starts:
        return
    with ThreadPoolExecutor(1, "read-ahead") as ahead:

        def fetch(begin: int) -> bytes:
            return store.read_range(name, begin, min(begin + starts.step, end))

        waiting = ahead.submit(fetch, start)
        for begin in starts[1:]:
            piece = waiting.result()
            waiting = ahead.submit(fetch, begin)
            yield piece
            del piece
        yield waiting.result()


def logical_pieces(pieces: Iterable[bytes], form: InputFormat) -> Iterator[bytes]:
    """Yield the logical stream in pieces, given the stored bytes from their start.

    Raises:
        DamagedContentError: the content is damaged, cut short or no UTF-8; after its good lines.
        InputError: the driver of a compression is not installed. Ends the job.
    """
    if form.compression is not None:
        pieces = decompressed(pieces, form.compression)
    pieces = _refusing_utf_16(pieces)
    return json_elements(pieces) if form.content == "document" else pieces


def check_not_utf_16(beginning: bytes) -> None:
    """Refuse text of another encoding, which would be as many bad rows as it has lines."""
    if beginning.startswith(_UTF_16):
        found = "it begins as UTF-16 or UTF-32 text does; wanted UTF-8"
        raise DamagedContentError(found, 0, "content")


def _refusing_utf_16(pieces: Iterable[bytes]) -> Iterator[bytes]:
    pieces = iter(pieces)
    beginning = b""
    for piece in pieces:
        beginning += piece
        if len(beginning) > 1:
            break
    check_not_utf_16(beginning)
    if beginning:
        yield beginning
    yield from pieces


def windows_of(pieces: Iterable[bytes], window_bytes: int) -> Iterator[bytes]:
    """Cut a stream into windows: all but the last have the same size, none is empty.

    Where the pieces end with an error, the bytes before it are given first.
    """
    held: list[bytes] = []
    num_held = 0
    failure: Exception | None = None
    pieces = iter(pieces)
    while True:
        try:
            piece = next(pieces, None)
        except DamagedContentError as error:
            failure, piece = error, None
        if piece is None:
            break
        at = 0
        if num_held + len(piece) >= window_bytes:
            at = window_bytes - num_held
            yield b"".join((*held, piece[:at]))
            held, num_held = [], 0
            while at + window_bytes <= len(piece):
                yield piece[at : at + window_bytes]
                at += window_bytes
        if at < len(piece):
            held.append(piece[at:] if at else piece)
            num_held += len(piece) - at
    if num_held:
        yield b"".join(held)
    if failure is not None:
        raise failure


def views_of(pieces: Iterable[bytes], window_bytes: int) -> Iterator[memoryview]:
    """Cut pieces, each but the last of whole windows, into windows without copying them."""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(piece), window_bytes):
            yield view[start : start + window_bytes]


def take(windows: Iterator[bytes], num_windows: int) -> list[bytes]:
    """The next windows, at most this many."""
    return list(itertools.islice(windows, num_windows))
