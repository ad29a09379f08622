"""Outcomes of a lease on local disk, each of which outlives the process that wrote it.

The file is mapped: a line is there, for whoever reads the file, once it is copied into memory, and
stays when the process is killed, without a call of the operating system for each row. Its space is
reserved before it is mapped, so that a full disk is an error and not a dead process.

Promises: a file that a killed process left begins with whole lines, and nothing behind them reads
as a line: it is zeros, or a line without its newline.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from rdu_batch.runner.sealing import no_scratch

#: Reserved at a time; a longer line reserves as much as it needs.
_RESERVE_BYTES = 1 << 20
_NEWLINE = 0x0A


class OutcomeSpool:
    """Lines of outcomes in a file of their own, with the row count and size of what was written."""

    def __init__(self, path: Path) -> None:
        """Make the file.

        Raises:
            StoreError: it cannot be made. Ends the job.
        """
        self.path = path
        self.num_rows = 0
        self.num_bytes = 0
        self._memory: mmap.mmap | None = None
        self._room_bytes = 0
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise no_scratch(path, error) from error

    def write(self, line: bytes) -> None:
        """Add one line, its newline included.

        Raises:
            StoreError: the local disk failed or is full. Ends the job.
        """
        start, end = self.num_bytes, self.num_bytes + len(line)
        memory = self._memory
        if memory is None or end > self._room_bytes:
            memory = self._reserve(len(line))
        # The newline goes last: a line that a kill cut short does not read as one.
        memory[start : end - 1] = line[:-1]
        memory[end - 1] = _NEWLINE
        self.num_bytes = end
        self.num_rows += 1

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes, once the spool is closed.

        Raises:
            StoreError: the local disk failed. Ends the job.
        """
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise no_scratch(self.path, error) from error

    def close(self) -> None:
        """Cut the file to what was written; it stays.

        Raises:
            StoreError: the local disk failed. Ends the job.
        """
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        self._unmap()
        try:
            os.ftruncate(fd, self.num_bytes)
        except OSError as error:
            raise no_scratch(self.path, error) from error
        finally:
            os.close(fd)

    def _reserve(self, num_bytes: int) -> mmap.mmap:
        """Make room for a line of so many bytes, and map it all."""
        room_bytes = self._room_bytes + max(_RESERVE_BYTES, num_bytes)
        try:
            os.posix_fallocate(self._fd, self._room_bytes, room_bytes - self._room_bytes)
            self._unmap()
            self._memory = mmap.mmap(self._fd, room_bytes)
        except OSError as error:
            raise no_scratch(self.path, error) from error
        self._room_bytes = room_bytes
        return self._memory

    def _unmap(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
