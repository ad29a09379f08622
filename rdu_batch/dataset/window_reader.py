"""Windows of a planned file's stream, checked against the plan's pins, wherever they lie.

A plain file is read by ranges; a compressed one or a JSON document is decoded from its start, going
on where the last read stood; a large one of these is read from the pieces in the output, where they
are (an audit's scratch output has none). Memory:
the cached windows and one ranged read, or one piece.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from rdu_batch.dataset.decoding import DamagedContentError
from rdu_batch.dataset.formats import FORMATS
from rdu_batch.dataset.input_store import reading_input
from rdu_batch.dataset.logical_stream import READ_BYTES, logical_pieces, stored_pieces, windows_of
from rdu_batch.dataset.range_counter import window_digest
from rdu_batch.dataset.recut import is_recut, read_piece
from rdu_batch.errors import InputError, ObjectMissing, StoreError
from rdu_batch.job.plan import MAX_DECODED_BYTES, WINDOW_BYTES, WINDOWS_PER_PIECE
from rdu_batch.storage.store import Store, open_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.job.plan import InputFile

#: Windows fetched at once, and kept.
WINDOWS_PER_READ: Final = 8


class WindowReader:
    """Reads windows of a planned job's inputs. Not for several threads at once.

    Args:
        output: The output, which holds pieces of large decoded files.
        window_bytes: The window of the index; the plan's own but in tests.
        max_decoded_bytes: Streams of at most so many bytes are decoded, others lie in pieces.
    """

    def __init__(
        self,
        output: Store,
        *,
        window_bytes: int = WINDOW_BYTES,
        max_decoded_bytes: int = MAX_DECODED_BYTES,
    ) -> None:
        self._output = output
        self._window_bytes = window_bytes
        self._max_decoded_bytes = max_decoded_bytes
        self._input: tuple[int, Store, str] | None = None
        self._windows: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        #: Of the file that is being decoded: its index, the next window's, and the windows.
        self._decoding: tuple[int, int, Iterator[bytes]] | None = None

    def window(self, file: InputFile, index: int, last_wanted: int) -> bytes:
        """Return a checked window; reads ahead to ``last_wanted``, or past it for a long line.

        Raises:
            InputError: the file is gone or changed since the plan was made. Ends the job.
            OutputMismatch: a piece in the output is damaged. Ends the job.
        """
        key = (file.index, index)
        if key not in self._windows:
            num_wanted = last_wanted - index + 1
            if num_wanted <= 0:
                num_wanted = 1 if index == last_wanted + 1 else WINDOWS_PER_READ
            self._fetch(file, index, min(num_wanted, WINDOWS_PER_READ, len(file.windows) - index))
        self._windows.move_to_end(key)
        return self._windows[key]

    def open_input(self, file: InputFile) -> tuple[Store, str]:
        """Open an input; its pin is checked when the reader comes to it from another file.

        Raises:
            InputError: it is gone or changed since the plan was made. Ends the job.
        """
        if self._input is None or self._input[0] != file.index:
            with reading_input(file.url):
                store, name = open_object(file.url)
                check_pin(store, name, file)
            self._input = (file.index, store, name)
        return self._input[1], self._input[2]

    def _fetch(self, file: InputFile, first: int, num_windows: int) -> None:
        if FORMATS[file.format].is_stored_as_read:
            content = self._stored(file, first, num_windows)
        else:
            piece = self._recut(file, first)
            if piece is not None:
                first, content = piece
            else:
                content = self._decoded(file, first, num_windows)
        for index, window in enumerate(content, first):
            if window_digest(window) != file.windows[index].digest:
                begin = index * self._window_bytes
                raise changed(file, f"bytes {begin} to {begin + len(window)} are not those planned")
            self._windows[file.index, index] = window
            if len(self._windows) > WINDOWS_PER_READ:
                self._windows.popitem(last=False)

    def _stored(self, file: InputFile, first: int, num_windows: int) -> Iterator[bytes]:
        store, name = self.open_input(file)
        start = first * self._window_bytes
        end = min(start + num_windows * self._window_bytes, file.size_bytes)
        with reading_input(file.url):
            try:
                content = store.read_range(name, start, end)
            except StoreError:
                check_pin(store, name, file)  # a change is said as a change, not as a failed read
                raise
        return windows_of([content], self._window_bytes)

    def _recut(self, file: InputFile, index: int) -> tuple[int, Iterator[bytes]] | None:
        """The piece with a window; None where there is none: then the file is decoded after all."""
        if not is_recut(file, self._max_decoded_bytes):
            return None
        self.open_input(file)
        piece = index // WINDOWS_PER_PIECE
        content = read_piece(self._output, file, piece)
        if content is None:
            return None
        return piece * WINDOWS_PER_PIECE, windows_of([content], self._window_bytes)

    def _decoded(self, file: InputFile, first: int, num_windows: int) -> Iterator[bytes]:
        """Windows from the start of the file or from where the last read of it stood."""
        store, name = self.open_input(file)
        left = self._decoding
        if left is None or left[0] != file.index or left[1] > first:
            pieces = stored_pieces(store, name, 0, file.size_bytes, READ_BYTES)
            stream = logical_pieces(pieces, FORMATS[file.format])
            left = (file.index, 0, windows_of(stream, self._window_bytes))
        self._decoding = None
        _, at, windows = left
        found: list[bytes] = []
        with reading_input(file.url):
            try:
                while at < first + num_windows:
                    window = next(windows)
                    if at >= first:
                        found.append(window)
                    at += 1
            except StoreError:
                check_pin(store, name, file)
                raise
            except DamagedContentError as error:
                raise changed(file, f"it is damaged {error}") from error
            except StopIteration:
                raise changed(file, "its content is shorter than planned") from None
        self._decoding = (file.index, at, windows)
        return iter(found)


def check_pin(store: Store, name: str, file: InputFile) -> None:
    """Check that a file is the planned one, by its size and etag.

    Raises:
        InputError: it is gone, or another. Ends the job.
    """
    try:
        found = store.stat(name)
    except ObjectMissing as error:
        raise changed(file, "it is gone") from error
    if found.size_bytes != file.size_bytes:
        raise changed(file, f"it has {found.size_bytes} bytes, planned {file.size_bytes}")
    if file.etag is not None and found.etag is not None and found.etag != file.etag:
        raise changed(file, f"its etag is {found.etag}, planned {file.etag}")


def changed(file: InputFile, found: str) -> InputError:
    """The error of a file that is not the planned one any more."""
    return InputError(
        f"{file.url} changed since the plan was made: {found}; put the old file back, or choose "
        "another output.url to plan the inputs as they are now"
    )
