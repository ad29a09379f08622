"""Folders behind an fsspec driver, and which class keeps their promises.

A driver's reads are alike; whole writes and create-once are not: each family that can keep these
promises has a file of its own (``object_store.py``, ``sftp_store.py``, ``webdav_store.py``). All
else (http, hf, chains, any other driver) is read, never written: a refusal is better than a
half-written part.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from rdu_batch.errors import (
    CreateOnceUnsupported,
    RduBatchError,
    StoreDriverMissing,
    StoreError,
)
from rdu_batch.job.secret_words import has_secret, hide_secrets
from rdu_batch.storage.options_in_force import options_of
from rdu_batch.storage.retries import Retries
from rdu_batch.storage.store import (
    ObjectStat,
    Store,
    check_name,
    check_range,
    sorted_by_name,
    under_folder,
)
from rdu_batch.storage.store_errors import plain_words, reading, writing
from rdu_batch.storage.urls import parts_of

T = TypeVar("T")

#: What to install for a protocol: one of our extras, where there is one.
_PACKAGE_OF_PROTOCOL = {
    **dict.fromkeys(("s3", "s3a"), "rdu_batch[s3]"),
    **dict.fromkeys(("gs", "gcs"), "rdu_batch[gcs]"),
    **dict.fromkeys(("az", "abfs", "abfss"), "rdu_batch[azure]"),
    **dict.fromkeys(("http", "https"), "rdu_batch[http]"),
    **dict.fromkeys(("sftp", "ssh"), "rdu_batch[sftp]"),
    **dict.fromkeys(("webdav", "webdavs", "dav", "davs"), "rdu_batch[webdav]"),
    "hf": "rdu_batch[hf]",
}


def open_remote_store(url: str, protocol: str) -> Store:
    """Open a URL that is not local. See ``rdu_batch.storage.store.open_store``."""
    if has_secret(url):
        raise StoreError(
            f"cannot open {hide_secrets(url)}: there is a password or a signature in the URL, "
            "which logs and plans would show; leave it out, and give it in storage_options as "
            '"${ENV:NAME}", or where the driver finds it by itself'
        )
    options = options_of(url)
    try:
        return Retries().call(lambda: _open(url, protocol, options))
    except RduBatchError:
        raise
    except ImportError as error:
        package = _PACKAGE_OF_PROTOCOL.get(protocol)
        advice = f"run: pip install '{package}'" if package else "install its fsspec driver"
        raise StoreDriverMissing(
            f"cannot open {url}: the driver for {protocol}:// is not installed; {advice} ({error})"
        ) from error
    except ValueError as error:
        known = ", ".join(["local paths", *sorted(_PACKAGE_OF_PROTOCOL), "memory"])
        raise StoreError(f"cannot open {url}: {plain_words(error)}; known here: {known}") from None
    except Exception as error:  # noqa: BLE001 - a driver may connect when it is made
        raise StoreError(f"cannot open {url}: {plain_words(error)}") from None


def _open(url: str, protocol: str, options: dict[str, Any]) -> Store:
    if parts_of(url).is_chain:
        return RemoteStore(url, protocol, *fsspec.url_to_fs(url, **options))
    if protocol in ("webdav", "webdavs", "dav", "davs"):
        from rdu_batch.storage.webdav_store import open_webdav_store

        return open_webdav_store(url, protocol, options)
    if protocol in ("sftp", "ssh"):
        from rdu_batch.storage.sftp_store import SftpStore

        return SftpStore(url, protocol, *fsspec.url_to_fs(url, **options))
    if protocol in ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"):
        from rdu_batch.storage.object_store import open_object_store

        return open_object_store(url, protocol, options)
    return RemoteStore(url, protocol, *fsspec.url_to_fs(url, **options))


class RemoteStore(Store):
    """A folder behind an fsspec driver, to be read; see ``Store`` for what the methods promise.

    A family that can be written overrides what says so below.
    """

    create_once_by: str | None = None
    puts_whole = False
    #: Held around every request; a real lock only where the driver is not thread-safe.
    _lock: AbstractContextManager[Any] = nullcontext()
    #: How requests are repeated. A driver that does so by itself is asked once.
    retries = Retries()

    def __init__(self, url: str, protocol: str, filesystem: Any, path: str) -> None:
        bare = f"{protocol}://"
        self.url = bare if url.rstrip("/") + "//" == bare else url.rstrip("/")
        if parts_of(url).is_chain:
            self.url = url
        self.protocol = protocol
        self._filesystem = filesystem
        root = str(filesystem._strip_protocol(path)).rstrip("/")  # noqa: SLF001
        # Within an archive, or on a server of its own, a path may begin with a name.
        self._prefix = f"{root}/" if root or filesystem.root_marker == "/" else ""

    def _path(self, name: str) -> str:
        return f"{self._prefix}{check_name(name)}"

    def stat(self, name: str) -> ObjectStat:
        """See ``Store.stat``."""
        path = self._path(name)
        with reading("look at", self.join(name)):
            return self._request(lambda: self._stat(path))

    def read(self, name: str) -> bytes:
        """See ``Store.read``."""
        path = self._path(name)
        with reading("read", self.join(name)):
            return self._request(lambda: self._read(path))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """See ``Store.read_range``."""
        path = self._path(name)
        check_range(start, end)
        if start == end:
            return b""
        with reading("read", self.join(name)):
            content = self._request(lambda: self._read_range(path, start, end))
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
        base = f"{self._prefix}{under_folder(folder)}"
        with reading("list", self.join(folder)):
            found = self._request(lambda: self._list(base, recursive=recursive))
        objects = []
        for info in found:
            path = str(info.get("name", ""))
            # A listing of "a" may hold the object "a" itself, and stores keep folder marks "a/".
            if info.get("type") == "file" and path.startswith(base) and not path.endswith("/"):
                name = path[len(self._prefix) :]
                # A page of links says no sizes.
                stat = self.stat(name) if info.get("size") is None else self._stat_of(info)
                objects.append((name, stat))
        return sorted_by_name(objects)

    def put_whole(self, name: str, content: bytes) -> None:
        """See ``Store.put_whole``. ``StoreError`` where the driver has no whole put."""
        path = self._path(name)
        self._check_writable(name)
        with writing("write", self.join(name)):
            self._request(lambda: self._put(path, content))

    def put_file(self, name: str, local_path: str) -> None:
        """See ``Store.put_file``. ``StoreError`` where the driver has no whole put."""
        path = self._path(name)
        self._check_writable(name)
        size_bytes = _size_of_file(local_path)
        with writing(f"copy {local_path} to", self.join(name)):
            self._request(lambda: self._put_file(path, local_path))
        stored = self.stat(name)
        if stored.size_bytes != size_bytes:
            raise StoreError(
                f"cannot copy {local_path} to {self.join(name)}: the store holds "
                f"{stored.size_bytes} bytes, wanted {size_bytes}; did the file change meanwhile?"
            )

    def create_once(self, name: str, content: bytes) -> bool:
        """See ``Store.create_once``. A lost reply is asked for again, so False may be our own."""
        path = self._path(name)
        if not content:
            raise ValueError(f"create_once needs content: {name!r}")
        if self.create_once_by is None:
            raise CreateOnceUnsupported(
                f"cannot create {self.join(name)} exactly once: the driver for {self.protocol}:// "
                "has no such call; use a local folder, s3, gs, az or sftp for the output"
            )
        with writing("create", self.join(name)):
            return self._request(lambda: self._create(path, content))

    def copy(self, source: str, target: str) -> None:
        """See ``Store.copy``."""
        source_path, target_path = self._path(source), self._path(target)
        self._check_writable(target)
        self.stat(source)  # some drivers "copy" a folder by making an empty one
        with reading("copy", self.join(source)):
            self._request(lambda: self._copy(source_path, target_path))

    def delete(self, name: str) -> None:
        """See ``Store.delete``."""
        path = self._path(name)

        def remove() -> None:
            try:
                self._filesystem.rm_file(path)
            except FileNotFoundError:
                return

        with writing("delete", self.join(name)):
            self._request(remove)

    # --- What a family does in its own way -------------------------------------------------------

    def _stat(self, path: str) -> ObjectStat:
        self._filesystem.invalidate_cache()
        info = self._filesystem.info(path)
        if info.get("type") != "file":
            raise FileNotFoundError(path)
        return self._stat_of(info)

    def _stat_of(self, info: dict[str, Any]) -> ObjectStat:
        """Read size and etag from a driver's info. A weak etag does not pin bytes: left out."""
        etag = str(info.get("ETag") or info.get("etag") or "")
        strong = etag.strip('"') if etag and not etag.startswith("W/") else ""
        return ObjectStat(int(info["size"] or 0), strong or None)

    def _read(self, path: str) -> bytes:
        return bytes(self._filesystem.cat_file(path))

    def _read_range(self, path: str, start: int, end: int) -> bytes:
        return bytes(self._filesystem.cat_file(path, start=start, end=end))

    def _list(self, base: str, *, recursive: bool) -> list[dict[str, Any]]:
        self._filesystem.invalidate_cache()
        try:
            if recursive:
                found = self._filesystem.find(base.rstrip("/"), detail=True)
                # Some drivers answer with an empty list where the folder is an object.
                return list(found.values()) if isinstance(found, dict) else []
            return list(self._filesystem.ls(base.rstrip("/"), detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _put(self, path: str, content: bytes) -> None:
        self._filesystem.pipe_file(path, content)

    def _put_file(self, path: str, local_path: str) -> None:
        self._filesystem.put_file(local_path, path)

    def _create(self, path: str, content: bytes) -> bool:
        """Create an object if there is none: only where ``create_once_by`` says how."""
        raise NotImplementedError

    def _copy(self, source_path: str, target_path: str) -> None:
        """Copy through a local file; a family whose server copies whole does it there."""
        with tempfile.TemporaryDirectory(prefix="rdu_batch-copy-") as folder:
            spool = str(Path(folder, "object"))
            self._filesystem.get_file(source_path, spool)
            self._put_file(target_path, spool)

    def _reconnect(self) -> None:
        """Before a request is repeated: for drivers that do not connect again by themselves."""

    def _request(self, do: Callable[[], T]) -> T:
        def locked(do: Callable[[], T] = do) -> T:
            with self._lock:
                return do()

        return self.retries.call(locked, before_next=self._reconnect)

    def _check_writable(self, name: str) -> None:
        if not self.puts_whole:
            is_chain = parts_of(self.url).is_chain
            who = "a chain of drivers" if is_chain else f"the driver for {self.protocol}://"
            raise StoreError(
                f"cannot write {self.join(name)}: {who} cannot write an object whole, a reader "
                "could see half of it; use a local folder, s3, gs, az, sftp or webdav"
            )


def _size_of_file(local_path: str) -> int:
    with writing("look at", local_path):
        return Path(local_path).stat().st_size
