"""Compressed bytes to their content, piece by piece, in bounded memory.

Several streams one after the other (gzip members, zstd frames) are one content. What is damaged or
cut short is told after all that could be read before it, never passed over.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rdu_batch.dataset.formats import Compression

_MAX_OUTPUT_BYTES: Final = 1 << 20
#: Compressed bytes given to a decompressor at once. Zstandard's driver gives all that comes of
#: them, up to 128 KiB for each 4 bytes, so it gets less.
_INPUT_BYTES: Final = 1 << 18
_ZSTD_INPUT_BYTES: Final = 1 << 10
#: Most memory for the history of one stream.
_MAX_HISTORY_BYTES: Final = 1 << 27
_NAMES: Final = {"gz": "gzip", "zst": "Zstandard", "bz2": "bzip2", "xz": "xz"}


class DamagedContentError(Exception):
    """A file's content is not what its name says, or ends too early. Says what, and where."""

    def __init__(self, found: str, offset: int, where: str) -> None:
        self.found = found
        #: ``stored`` byte of the file, or byte of its ``decompressed`` content.
        self.where = where
        self.offset = offset
        super().__init__(f"at {where} byte {offset}: {found}")


def decompressed(pieces: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    """Yield the content of a compressed file, given its stored bytes in pieces of any size.

    A file of no bytes is an empty one, not a damaged one.

    Raises:
        DamagedContentError: after all good content.
        InputError: the driver of this compression is not installed. Ends the job.
    """
    open_stream, feed, errors = _driver(compression)
    input_bytes = _ZSTD_INPUT_BYTES if compression == "zst" else _INPUT_BYTES
    stream: Any = None
    name = _NAMES[compression]
    offset = num_streams = 0
    for piece in pieces:
        for start in range(0, len(piece), input_bytes):
            left = piece[start : start + input_bytes]
            end = offset + len(left)
            while left:
                if stream is None:
                    left = left.lstrip(b"\0") if num_streams else left  # padding, as tapes have it
                    if not left:
                        break
                    stream = open_stream()
                    num_streams += 1
                try:
                    yield from feed(stream, left)
                except errors as error:
                    found = f"it is no {name} stream, or a damaged one ({error})"
                    raise DamagedContentError(found, end - len(left), "stored") from error
                left = stream.unused_data if stream.eof else b""
                stream = None if stream.eof else stream
            offset = end
    # A file of no bytes has no content, as a .jsonl of no bytes has none.
    if stream is not None:
        raise DamagedContentError(f"the {name} stream is cut short", offset, "stored")


def _driver(
    compression: Compression,
) -> tuple[Callable[[], Any], Callable[[Any, bytes], Iterator[bytes]], tuple[type[Exception], ...]]:
    """What opens a stream, what feeds it, and what it raises for damage."""
    if compression == "gz":
        return (lambda: zlib.decompressobj(wbits=31)), _feed_zlib, (zlib.error,)
    if compression == "bz2":
        return bz2.BZ2Decompressor, _feed_bounded, (OSError, ValueError)
    if compression == "xz":
        # Half of the memory goes to the history.
        return (
            lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, 2 * _MAX_HISTORY_BYTES),
            _feed_bounded,
            (lzma.LZMAError,),
        )
    try:
        import zstandard
    except ImportError as error:
        raise InputError(
            "a .zst input needs the package zstandard, which is not installed; "
            'install it with: pip install "rdu_batch[zstd]"'
        ) from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_HISTORY_BYTES)
    return decompressor.decompressobj, _feed_zstd, (zstandard.ZstdError,)


def _feed_zlib(stream: Any, left: bytes) -> Iterator[bytes]:
    while True:
        content = stream.decompress(left, _MAX_OUTPUT_BYTES)
        if content:
            yield content
        left = stream.unconsumed_tail
        if stream.eof or (not left and len(content) < _MAX_OUTPUT_BYTES):
            return


def _feed_bounded(stream: Any, left: bytes) -> Iterator[bytes]:
    while True:
        content = stream.decompress(left, _MAX_OUTPUT_BYTES)
        if content:
            yield content
        left = b""
        if stream.eof or stream.needs_input:
            return


def _feed_zstd(stream: Any, left: bytes) -> Iterator[bytes]:
    content = stream.decompress(left)
    if content:
        yield content
