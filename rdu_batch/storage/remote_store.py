"""Folders behind an fsspec driver: object stores, memory, and read-only anything else.

An object store's single put is whole by nature. Drivers without a whole put (sftp, http, ...) may
be read, not written: a refusal is better than a half-written part.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import fsspec

from rdu_batch.errors import (
    CreateOnceUnsupported,
    StoreDriverMissing,
    StoreError,
)
from rdu_batch.storage.store import (
    ObjectStat,
    Store,
    check_name,
    check_range,
    sorted_by_name,
    under_folder,
)
from rdu_batch.storage.store_errors import http_status, plain_words, reading, writing

#: What to install for a protocol: one of our extras where there is one, else the driver's package.
_PACKAGE_OF_PROTOCOL = {
    **dict.fromkeys(("s3", "s3a"), "rdu_batch[s3]"),
    **dict.fromkeys(("gs", "gcs"), "rdu_batch[gcs]"),
    **dict.fromkeys(("az", "abfs", "abfss"), "rdu_batch[azure]"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "hf": "huggingface_hub",
}
#: Their put carries "only if there is none" to the server in one request.
_CREATES_ONCE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
#: A put of theirs becomes visible whole.
_PUTS_WHOLE = _CREATES_ONCE | {"memory", "hf"}
#: The server copies in one step. Azure's copy may still run when the call returns: not here.
_COPIES_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "memory"})
_MAX_CONFLICTS = 8
_FIRST_PAUSE_S = 0.05


def open_remote_store(url: str, protocol: str) -> Store:
    """Open a URL that is not local. See ``rdu_batch.storage.store.open_store``."""
    try:
        # Only object stores keep a cache of listings, and some drivers refuse unknown options.
        options = {"use_listings_cache": False} if protocol in _CREATES_ONCE else {}
        filesystem, path = fsspec.url_to_fs(url, **options)
    except ImportError as error:
        package = _PACKAGE_OF_PROTOCOL.get(protocol)
        advice = f"run: pip install '{package}'" if package else "install its fsspec driver"
        raise StoreDriverMissing(
            f"cannot open {url}: the driver for {protocol}:// is not installed; {advice} ({error})"
        ) from error
    except ValueError as error:
        known = ", ".join(["local paths", *sorted(_PACKAGE_OF_PROTOCOL), "memory"])
        raise StoreError(f"cannot open {url}: {error}; known here: {known}") from error
    except Exception as error:  # a driver may connect when it is made, and fail in its own way
        raise StoreError(f"cannot open {url}: {plain_words(error)}") from error
    kind = MemoryStore if protocol == "memory" else RemoteStore
    return kind(url, protocol, filesystem, path)


class RemoteStore(Store):
    """A folder behind an fsspec driver. See ``Store`` for what the methods promise."""

    #: Held around every call of the driver; a real lock only where the driver is not thread-safe.
    _lock: AbstractContextManager[Any] = nullcontext()

    def __init__(self, url: str, protocol: str, filesystem: Any, path: str) -> None:
        bare = f"{protocol}://"
        self.url = bare if url.rstrip("/") + "//" == bare else url.rstrip("/")
        self.protocol = protocol
        self.create_once_by = "a conditional put" if protocol in _CREATES_ONCE else None
        self.puts_whole = protocol in _PUTS_WHOLE
        self._filesystem = filesystem
        self._root = str(filesystem._strip_protocol(path)).rstrip("/")  # noqa: SLF001

    def _path(self, name: str) -> str:
        return f"{self._root}/{check_name(name)}"

    def stat(self, name: str) -> ObjectStat:
        """See ``Store.stat``."""
        path = self._path(name)
        with self._lock, reading("look at", self.join(name)):
            self._filesystem.invalidate_cache()
            info = self._filesystem.info(path)
            if info.get("type") != "file":
                raise FileNotFoundError(name)
            return _stat_of(info)

    def read(self, name: str) -> bytes:
        """See ``Store.read``."""
        path = self._path(name)
        with self._lock, reading("read", self.join(name)):
            return bytes(self._filesystem.cat_file(path))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """See ``Store.read_range``."""
        path = self._path(name)
        check_range(start, end)
        if start == end:
            return b""
        with self._lock, reading("read", self.join(name)):
            content = bytes(self._filesystem.cat_file(path, start=start, end=end))
        if len(content) != end - start:
            raise StoreError(
                f"cannot read {self.join(name)}: wanted bytes {start} to {end}, got "
                f"{len(content)}; it was cut short, or the store does not serve ranges"
            )
        return content

    def list_objects(
        self, folder: str = "", *, recursive: bool = False
    ) -> list[tuple[str, ObjectStat]]:
        """See ``Store.list_objects``."""
        base = f"{self._root}/{under_folder(folder)}"
        with self._lock, reading("list", self.join(folder)):
            self._filesystem.invalidate_cache()
            try:
                if recursive:
                    found = self._filesystem.find(base.rstrip("/"), detail=True).values()
                else:
                    found = self._filesystem.ls(base.rstrip("/"), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        objects = []
        for info in found:
            path = str(info["name"])
            # A listing of "a" may hold the object "a" itself, and stores keep folder marks "a/".
            if info.get("type") == "file" and path.startswith(base) and not path.endswith("/"):
                objects.append((path[len(self._root) + 1 :], _stat_of(info)))
        return sorted_by_name(objects)

    def put_whole(self, name: str, content: bytes) -> None:
        """See ``Store.put_whole``. ``StoreError`` where the driver has no whole put."""
        path = self._path(name)
        self._check_writable(name)
        with self._lock, writing("write", self.join(name)):
            self._filesystem.pipe_file(path, content)

    def put_file(self, name: str, local_path: str) -> None:
        """See ``Store.put_file``. ``StoreError`` where the driver has no whole put."""
        path = self._path(name)
        self._check_writable(name)
        size_bytes = _size_of_file(local_path)
        with self._lock, writing(f"copy {local_path} to", self.join(name)):
            self._filesystem.put_file(local_path, path)
        stored = self.stat(name)
        if stored.size_bytes != size_bytes:
            raise StoreError(
                f"cannot copy {local_path} to {self.join(name)}: the store holds "
                f"{stored.size_bytes} bytes, wanted {size_bytes}; did the file change meanwhile?"
            )

    def create_once(self, name: str, content: bytes) -> bool:
        """See ``Store.create_once``. A conflict of two writers (409) is tried again."""
        path = self._path(name)
        if not content:
            raise ValueError(f"create_once needs content: {name!r}")
        if self.protocol not in _CREATES_ONCE:
            raise CreateOnceUnsupported(
                f"cannot create {self.join(name)} exactly once: the driver for {self.protocol}:// "
                "has no such call; use a local folder, s3, gs or az for the output"
            )
        for attempt in range(_MAX_CONFLICTS):
            try:
                self._filesystem.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            except Exception as error:  # drivers raise their own classes, not only OSError
                status = http_status(error)
                if status == 412:
                    return False
                if status != 409 or attempt + 1 == _MAX_CONFLICTS:
                    with writing("create", self.join(name)):
                        raise
                time.sleep(_FIRST_PAUSE_S * 2**attempt * random.random())  # noqa: S311
            else:
                return True
        raise AssertionError("the last attempt returns or raises")

    def copy(self, source: str, target: str) -> None:
        """See ``Store.copy``."""
        source_path, target_path = self._path(source), self._path(target)
        self._check_writable(target)
        with self._lock, reading("copy", self.join(source)):
            self.stat(source)  # some drivers "copy" a folder by making an empty one
            if self.protocol in _COPIES_WHOLE:
                self._filesystem.cp_file(source_path, target_path)
                return
            with tempfile.TemporaryDirectory(prefix="rdu_batch-copy-") as folder:
                spool = str(Path(folder, "object"))
                self._filesystem.get_file(source_path, spool)
                self.put_file(target, spool)

    def delete(self, name: str) -> None:
        """See ``Store.delete``."""
        path = self._path(name)
        with self._lock, writing("delete", self.join(name)):
            try:
                self._filesystem.rm_file(path)
            except FileNotFoundError:
                return

    def _check_writable(self, name: str) -> None:
        if not self.puts_whole:
            raise StoreError(
                f"cannot write {self.join(name)}: the driver for {self.protocol}:// cannot write "
                "an object whole, a reader could see half of it; use a local folder, s3, gs or az"
            )


class MemoryStore(RemoteStore):
    """Objects in this process's memory, for tests and dry runs; other processes see nothing."""

    _lock = threading.RLock()

    def __init__(self, url: str, protocol: str, filesystem: Any, path: str) -> None:
        super().__init__(url, protocol, filesystem, path)
        self.create_once_by = "a lock of this process"

    def create_once(self, name: str, content: bytes) -> bool:
        """See ``Store.create_once``."""
        if not content:
            raise ValueError(f"create_once needs content: {name!r}")
        with self._lock:
            if self.exists(name):
                return False
            self.put_whole(name, content)
            return True


def _stat_of(info: dict[str, Any]) -> ObjectStat:
    """Read size and etag from a driver's info. A weak etag does not pin the bytes: left out."""
    etag = str(info.get("ETag") or info.get("etag") or "")
    strong = etag.strip('"') if etag and not etag.startswith("W/") else ""
    return ObjectStat(int(info["size"] or 0), strong or None)


def _size_of_file(local_path: str) -> int:
    with writing("look at", local_path):
        return Path(local_path).stat().st_size
