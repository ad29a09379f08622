"""A folder on an SFTP server (paramiko's driver).

An object is written under a temporary name beside it, then renamed. Whole replace: the extension
``posix-rename@openssh.com``, which replaces its target in one step. Create-once: the protocol's own
rename, which must refuse a target that exists; OpenSSH makes a hard link for it, so that one of
several creators wins. Where the server's disk has no hard links OpenSSH looks, then renames: see
``rdu-batch probe``. Does not: sync to the server's disk (the protocol has no word for it).

One connection serves one thread at a time. A connection that broke is made again.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rdu_batch.storage.remote_store import RemoteStore
from rdu_batch.storage.store import ObjectStat
from rdu_batch.storage.temporary_names import is_temporary, temporary_beside


class SftpStore(RemoteStore):
    """See the module; ``Store`` says what the methods promise."""

    create_once_by = "a rename that refuses an existing target"
    puts_whole = True
    # Replies of two threads on one connection would reach the wrong one.
    _lock = threading.RLock()

    def _stat_of(self, info: dict[str, Any]) -> ObjectStat:
        return ObjectStat(int(info["size"] or 0), None)

    def _read(self, path: str) -> bytes:
        self._stat(path)  # a folder is no object
        content = io.BytesIO()
        self._filesystem.ftp.getfo(path, content)
        return content.getvalue()

    def _read_range(self, path: str, start: int, end: int) -> bytes:
        size_bytes = self._stat(path).size_bytes
        if end > size_bytes:
            return b""  # what is wrong with it says the caller
        with self._filesystem.ftp.open(path, "rb") as file:
            return b"".join(file.readv([(start, end - start)]))

    def _list(self, base: str, *, recursive: bool) -> list[dict[str, Any]]:
        found = super()._list(base, recursive=recursive)
        return [self._followed(info) for info in found if not is_temporary(info.get("name", ""))]

    def _followed(self, info: dict[str, Any]) -> dict[str, Any]:
        """A link as what it points to; a link to nothing stays a link, and is no object."""
        if info.get("type") != "link":
            return info
        try:
            return {**self._filesystem.info(info["name"]), "name": info["name"]}
        except FileNotFoundError:
            return info

    def _put(self, path: str, content: bytes) -> None:
        self._write(path, lambda: io.BytesIO(content), self._replace)

    def _put_file(self, path: str, local_path: str) -> None:
        self._write(path, lambda: open(local_path, "rb"), self._replace)  # noqa: PTH123, SIM115

    def _create(self, path: str, content: bytes) -> bool:
        if self._is_there(path):
            return False
        return self._write(path, lambda: io.BytesIO(content), self._take)

    def _write(
        self,
        path: str,
        open_content: Callable[[], Any],
        publish: Callable[[str, str], bool],
    ) -> bool:
        ftp = self._filesystem.ftp
        temporary = temporary_beside(path)
        try:
            try:
                with open_content() as content:
                    ftp.putfo(content, temporary)
            except FileNotFoundError:
                self._make_folder(path.rpartition("/")[0])
                with open_content() as content:
                    ftp.putfo(content, temporary)
            return publish(temporary, path)
        except Exception:
            with suppress(Exception):  # the first failure says more than this one
                ftp.remove(temporary)
            raise

    def _replace(self, temporary: str, path: str) -> bool:
        self._filesystem.ftp.posix_rename(temporary, path)
        return True

    def _take(self, temporary: str, path: str) -> bool:
        try:
            self._filesystem.ftp.rename(temporary, path)
        except OSError:
            # "Failure" is all that version 3 of the protocol says of a target that exists.
            if not self._is_there(path):
                raise
            self._filesystem.ftp.remove(temporary)
            return False
        return True

    def _is_there(self, path: str) -> bool:
        try:
            self._filesystem.ftp.stat(path)
        except FileNotFoundError:
            return False
        return True

    def _make_folder(self, path: str) -> None:
        """Make a folder and those above it; another writer may make them at the same time."""
        if not path or self._is_there(path):
            return
        self._make_folder(path.rpartition("/")[0])
        try:
            self._filesystem.ftp.mkdir(path)
        except OSError:
            if not self._is_there(path):
                raise

    def _reconnect(self) -> None:
        with self._lock:
            with suppress(Exception):  # it is broken, or the request would not be repeated
                self._filesystem.client.close()
            self._filesystem._connect()  # noqa: SLF001

    def delete_folder(self, folder: str) -> None:
        """See ``Store.delete_folder``; folders that are empty then are removed, too."""
        super().delete_folder(folder)
        base = self._path(folder.strip("/")) if folder.strip("/") else self._prefix.rstrip("/")
        with self._lock, suppress(OSError):
            below = self._filesystem.find(base, withdirs=True)
            for path in sorted([base, *below], key=len, reverse=True):
                self._filesystem.ftp.rmdir(path)
