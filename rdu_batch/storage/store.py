"""The ``Store``: a folder of named objects, and how a URL becomes one.

Names are relative to the store, with ``/`` between folders. A name never begins with ``/`` and
never holds a ``..`` part. Nothing is imported for a store until one of its kind is opened.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdu_batch.errors import CreateOnceUnsupported, ObjectMissing, StoreError, UsageError
from rdu_batch.storage.urls import join_url, split_object

if TYPE_CHECKING:
    from collections.abc import Sequence

_URL = re.compile(r"^(?P<protocol>[A-Za-z][A-Za-z0-9+.\-]*)(?P<mark>://|::)")
_LOCAL_PROTOCOLS = frozenset({"file", "local"})


@dataclass(frozen=True)
class ObjectStat:
    """Size of an object, and the store's own mark of its content where it gives one."""

    size_bytes: int
    #: Changes when the content changes. None for stores that give none (local, memory).
    etag: str | None


class Store(ABC):
    """A folder of objects. All methods raise ``StoreError``, or a subclass of it, on failure."""

    #: The folder's URL without a slash at its end; an absolute path for a local folder.
    url: str
    #: ``file`` for local folders, else the URL's protocol.
    protocol: str
    #: What keeps the promise of ``create_once``, in words for people; None where nothing does.
    create_once_by: str | None
    #: False where the driver cannot write an object whole: such a store is read, never written.
    puts_whole: bool = True

    def join(self, name: str) -> str:
        """Return the URL of an object, for messages and for opening it elsewhere."""
        return join_url(self.url, name)

    @abstractmethod
    def stat(self, name: str) -> ObjectStat:
        """Look at an object; ``ObjectMissing`` if there is none (a folder is not an object)."""

    def exists(self, name: str) -> bool:
        """Say whether there is an object of this name."""
        try:
            self.stat(name)
        except ObjectMissing:
            return False
        return True

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Read a whole object; ``ObjectMissing`` if there is none."""

    @abstractmethod
    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Read bytes ``[start, end)``: exactly that many, or ``StoreError``."""

    def read_all_with_stat(self, name: str, size_bytes: int) -> tuple[bytes, ObjectStat]:
        """Read an object of this size, and look at it after that. Raises as both do."""
        content = self.read_range(name, 0, size_bytes) if size_bytes else b""
        return content, self.stat(name)

    @abstractmethod
    def list_objects(
        self, folder: str = "", *, recursive: bool = False
    ) -> list[tuple[str, ObjectStat]]:
        """List the objects in a folder with their stats, sorted by name; [] if it is missing.

        Names are relative to the store. Temporary names of unfinished local writes are left out.
        """

    def list_names(self, folder: str = "", *, recursive: bool = False) -> list[str]:
        """List the names of the objects in a folder: sorted, fresh, [] if it is missing."""
        return [name for name, _ in self.list_objects(folder, recursive=recursive)]

    @abstractmethod
    def put_whole(self, name: str, content: bytes) -> None:
        """Write an object, replacing an older one; a reader sees the old or the new, whole."""

    @abstractmethod
    def put_file(self, name: str, local_path: str) -> None:
        """Like ``put_whole``, with the content of a local file, in bounded memory."""

    @abstractmethod
    def create_once(self, name: str, content: bytes) -> bool:
        """Create an object if there is none; True if this call made it. Never overwrites.

        The content must not be empty (``ValueError``): some drivers do not guard empty objects.
        False means that an object is there. On an object store it can be this caller's own: when a
        reply is lost, the driver asks again. A caller that must know uses ``create_or_read``.

        Raises:
            CreateOnceUnsupported: the store cannot promise this.
        """

    def create_or_read(self, name: str, content: bytes) -> bytes:
        """Create an object if there is none; returns the content that stands from now on.

        The caller puts something unique into its content. Then it has won exactly if its own
        content stands, even where the reply was lost on the way and the driver said False or
        failed.

        Raises:
            CreateOnceUnsupported: the store cannot promise this.
            StoreError: the store failed, and no object stands as far as can be seen.
        """
        try:
            if self.create_once(name, content):
                return content
        except CreateOnceUnsupported:
            raise
        except StoreError:
            with suppress(StoreError):  # the first failure says more than the second
                return self.read(name)
            raise
        return self.read(name)

    @abstractmethod
    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store, whole or not at all, replacing an older target."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object. A missing one is fine."""

    def delete_folder(self, folder: str) -> None:
        """Remove every object in a folder and below it. A missing folder is fine."""
        for name in self.list_names(folder, recursive=True):
            self.delete(name)


def open_store(url: str) -> Store:
    """Open a folder: a local path, ``file://`` or any fsspec URL. The folder need not exist.

    Relative local paths are taken from the current folder. A URL of the job that this process works
    on is opened with the job's storage options (``options_in_force.py``). A chain of drivers, such
    as ``zip://in::s3://bucket/x.zip``, can be read, not written.

    Raises:
        UsageError: the URL is empty, as an unset variable of a script is; it does not mean ``/``.
        StoreDriverMissing: the driver is not installed; the message names the extra.
        StoreError: the protocol is unknown, or the driver refuses the URL.
    """
    found = _URL.match(url)
    if found is None or (found["protocol"] in _LOCAL_PROTOCOLS and found["mark"] == "://"):
        from rdu_batch.storage.local_store import LocalStore

        path = url if found is None else url[found.end() :]
        if not path.strip():
            raise UsageError(
                f"the URL {url!r} names no folder: wanted one such as out or s3://bucket/out. "
                "Is a variable unset?"
            )
        return LocalStore(path)
    from rdu_batch.storage.remote_store import open_remote_store

    return open_remote_store(url, found["protocol"])


def open_object(url: str) -> tuple[Store, str]:
    """Open the folder that holds one object; returns the store and the object's name in it."""
    folder, name = split_object(url)
    return open_store(folder), name


def check_name(name: str) -> str:
    """Return the name if it is one; ``ValueError`` otherwise. A guard against leaving the store."""
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"not an object name: {name!r}")
    return name


def check_range(start: int, end: int) -> None:
    """``ValueError`` unless ``0 <= start <= end``."""
    if not 0 <= start <= end:
        raise ValueError(f"not a byte range: [{start}, {end})")


def under_folder(folder: str) -> str:
    """Return the prefix of names in a folder: empty for the store itself, else with a slash."""
    trimmed = folder.strip("/")
    return f"{check_name(trimmed)}/" if trimmed else ""


def sorted_by_name(
    objects: Sequence[tuple[str, ObjectStat]],
) -> list[tuple[str, ObjectStat]]:
    """Sort a listing by name, the order all stores share."""
    return sorted(objects, key=lambda listed: listed[0])
