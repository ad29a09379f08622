"""Standard output and standard error that never end a job, whatever becomes of them.

What a job came to lies in its store. Its reader may leave (``| head``), the disk of its log fill
up, a terminal hang up, or a stream be closed from the start: then what is written is lost, and
nothing else is. Promises: writing raises no ``OSError``, here, in any library, or while Python
ends; what was lost on standard output is known, for one sentence at the end. Does not: keep what
cannot be written, or touch streams of a program that only imports this one.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: The reader had enough, or there never was one: nothing is wrong with what was to be written.
_NOBODY_READS: Final = frozenset({errno.EPIPE, errno.EBADF})


class LossyWriter(io.RawIOBase):
    """A file descriptor that is written to for as long as that works."""

    def __init__(self, fd: int, name: str, failure: OSError | None = None) -> None:
        """Take a descriptor, which stays open.

        Args:
            fd: the descriptor.
            name: of the stream, such as ``<stdout>``.
            failure: why nothing can be written, where that is known.
        """
        self._fd = fd
        self.name = name
        self._known = failure
        #: Why something was lost; None while nothing was.
        self.failure: OSError | None = None

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Whether it leads to a terminal."""
        return os.isatty(self._fd)

    def write(self, content: ReadableBuffer, /) -> int:
        """Write all of it, or lose what cannot be written; the number of bytes given."""
        left = memoryview(content).cast("B")
        size = len(left)
        self.failure = self.failure or (self._known if size else None)
        while left and self.failure is None:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                # Shared with a program that made it non-blocking.
                select.select([], [self._fd], [])
            except OSError as error:
                self.failure = error
        return size


def guard_standard_streams() -> LossyWriter:
    """Make the streams of this process ones that never fail; what standard output is written to.

    A closed one leads nowhere from now on: the next file that is opened would get its number, and
    what native code prints would go into that file.
    """
    closed = _fill_closed()
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - stays open
    error = LossyWriter(2, "<stderr>", closed.get(2))
    sys.stderr = _text_over(error, sys.stderr, is_error=True)
    output = LossyWriter(1, "<stdout>", closed.get(1))
    sys.stdout = _text_over(output, sys.stdout, is_error=False)
    return output


def what_was_lost(output: LossyWriter) -> str | None:
    """In words, what became of standard output; None if nothing was lost."""
    sys.stdout.flush()
    if output.failure is None:
        return None
    if output.failure.errno in _NOBODY_READS:
        return "nobody reads standard output: what was to be printed there is lost"
    return f"standard output cannot be written, and is lost: {output.failure.strerror}"


def is_broken(output: LossyWriter) -> bool:
    """Whether something was lost that somebody wanted: a full disk, not a reader that left."""
    return output.failure is not None and output.failure.errno not in _NOBODY_READS


def is_stdout_lost() -> bool:
    """Whether whoever prints without end may stop: nothing arrives any more."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, LossyWriter) and raw.failure is not None


def _fill_closed() -> dict[int, OSError]:
    """Open what is closed of the three descriptors; the errors of those."""
    closed = {}
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError as error:
            closed[fd] = error
            # The lowest free number is this one. Children must not find it closed, either.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    return closed


def _text_over(raw: LossyWriter, before: TextIO | None, *, is_error: bool) -> io.TextIOWrapper:
    """A text stream over a descriptor that encodes and flushes as Python's own did."""
    is_unbuffered = bool(getattr(before, "write_through", False))
    errors = before.errors if before else None
    return io.TextIOWrapper(
        cast("BinaryIO", raw if is_unbuffered else io.BufferedWriter(raw)),
        encoding=before.encoding if before else "utf-8",
        # A character that the terminal's encoding lacks must not end a job, either.
        errors="backslashreplace" if is_error else errors,
        line_buffering=is_error or raw.isatty(),
        write_through=is_unbuffered,
    )
