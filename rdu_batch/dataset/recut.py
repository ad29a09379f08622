"""Large decoded streams, cut anew into pieces that can be read alone.

A gzip file of a terabyte can be read only from its start. So while the plan is made, what is larger
than ``MAX_DECODED_BYTES`` when decoded is written to the output once more, in pieces of
``WINDOWS_PER_PIECE`` windows: no lease decodes more than one piece before its first row. A piece is
gzip of level 1, and its name holds a digest of its windows, so planners that race and see different
inputs never write over each other's pieces; the index says every name, so no plan has to list them.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Final

from rdu_batch.dataset.formats import FORMATS
from rdu_batch.dataset.range_counter import window_digest
from rdu_batch.errors import ObjectMissing, OutputMismatch
from rdu_batch.job.plan import MAX_DECODED_BYTES, WINDOWS_PER_PIECE
from rdu_batch.job.run_paths import RECUT_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rdu_batch.job.plan import InputFile
    from rdu_batch.storage.store import Store

_GZIP_BITS: Final = 31
_GZIP_LEVEL: Final = 1


def is_recut(file: InputFile, max_decoded_bytes: int = MAX_DECODED_BYTES) -> bool:
    """Whether a file's stream lies in pieces in the output."""
    form = FORMATS[file.format]
    is_decoded = form.content != "table" and not form.is_stored_as_read
    return is_decoded and file.logical_bytes > max_decoded_bytes


def piece_names(file: InputFile) -> Iterator[str]:
    """Names of a file's pieces in order, relative to the output."""
    for first in range(0, len(file.windows), WINDOWS_PER_PIECE):
        yield piece_name(file, first // WINDOWS_PER_PIECE)


def piece_name(file: InputFile, piece: int) -> str:
    """The name of one piece, as the index says it."""
    first = piece * WINDOWS_PER_PIECE
    windows = file.windows[first : first + WINDOWS_PER_PIECE]
    return _name(file.index, piece, [window.digest for window in windows])


def _name(file_index: int, piece: int, digests: Sequence[str]) -> str:
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
    return f"{RECUT_FOLDER}/{file_index:05d}/{piece:06d}-{digest}.gz"


def read_piece(store: Store, file: InputFile, piece: int) -> bytes | None:
    """The content of one piece, its windows one after the other; None if the piece is not there.

    Raises:
        OutputMismatch: it is damaged. Ends the job.
    """
    name = piece_name(file, piece)
    try:
        return zlib.decompress(store.read(name), wbits=_GZIP_BITS)
    except ObjectMissing:
        return None
    except zlib.error as error:
        raise OutputMismatch(
            f"{store.join(name)} is damaged ({error}); delete it, and the input is decoded from "
            "its start instead"
        ) from error


class PieceWriter:
    """Takes the windows of one decoded stream in order; writes pieces once the stream is large.

    Args:
        store: the output; None where nothing is to be written.
        file_index: of the file among the inputs of the plan.
        max_decoded_bytes: a stream of at most so many bytes is not cut anew.
    """

    def __init__(
        self, store: Store | None, file_index: int, max_decoded_bytes: int = MAX_DECODED_BYTES
    ) -> None:
        self._store = store
        self._file_index = file_index
        self._max_decoded_bytes = max_decoded_bytes
        self._num_bytes = 0
        self._num_pieces = 0
        #: Whole pieces of a stream that is not large yet.
        self._held: list[tuple[str, bytes]] = []
        self._digests: list[str] = []
        self._compressor = _compressor()
        self._compressed: list[bytes] = []

    def add(self, window: bytes) -> None:
        """Take the next window."""
        if self._store is None:
            return
        self._num_bytes += len(window)
        self._digests.append(window_digest(window))
        self._compressed.append(self._compressor.compress(window))
        if len(self._digests) == WINDOWS_PER_PIECE:
            self._end_piece()

    def finish(self) -> None:
        """The stream has ended."""
        if self._digests:
            self._end_piece()

    def _end_piece(self) -> None:
        name = _name(self._file_index, self._num_pieces, self._digests)
        self._compressed.append(self._compressor.flush())
        self._held.append((name, b"".join(self._compressed)))
        self._num_pieces += 1
        self._digests, self._compressed, self._compressor = [], [], _compressor()
        if self._store is not None and self._num_bytes > self._max_decoded_bytes:
            for name, content in self._held:
                self._store.put_whole(name, content)
            self._held = []


def _compressor() -> zlib._Compress:
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_BITS)
