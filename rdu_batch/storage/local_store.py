"""A folder of the local (or a network-mounted) file system.

Whole writes: a temporary name beside the target, fsync, ``os.replace``. Create-once: the same with
``os.link``, which fails when the target exists. Both leave files with the umask's permissions.
Does not use fsspec: its local driver creates with a gap between the check and the write.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rdu_batch.errors import CreateOnceUnsupported, StoreError
from rdu_batch.storage.store import (
    ObjectStat,
    Store,
    check_name,
    check_range,
    sorted_by_name,
    under_folder,
)
from rdu_batch.storage.store_errors import reading, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TEMPORARY = re.compile(r"^\.[0-9a-f]{16}\.tmp$")
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV})
_COPY_BYTES = 8 * 2**20


class LocalStore(Store):
    """A local folder; ``url`` is its absolute path. See ``Store`` for what the methods promise."""

    protocol = "file"

    def __init__(self, path: str) -> None:
        # Not resolve(): the user's own path is what messages should name.
        self.url = os.path.abspath(Path(path or "/").expanduser())  # noqa: PTH100

    def _path(self, name: str) -> Path:
        return Path(self.url, check_name(name))

    def stat(self, name: str) -> ObjectStat:
        """See ``Store.stat``. Local files have no etag."""
        path = self._path(name)
        with reading("look at", str(path)):
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        return ObjectStat(found.st_size, None)

    def read(self, name: str) -> bytes:
        """See ``Store.read``."""
        path = self._path(name)
        with reading("read", str(path)), path.open("rb") as file:
            return file.read()

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """See ``Store.read_range``."""
        check_range(start, end)
        path = self._path(name)
        with reading("read", str(path)), path.open("rb") as file:
            file.seek(start)
            content = file.read(end - start)
        if len(content) != end - start:
            raise StoreError(
                f"cannot read {path}: wanted bytes {start} to {end}, it ends after "
                f"{start + len(content)}; it was cut short while in use"
            )
        return content

    def list_objects(
        self, folder: str = "", *, recursive: bool = False
    ) -> list[tuple[str, ObjectStat]]:
        """See ``Store.list_objects``. Links are followed; a loop of links is not entered twice."""
        prefix = under_folder(folder)
        path = Path(self.url, prefix)
        with reading("list", str(path)):
            return sorted_by_name(list(_walk(path, prefix, recursive=recursive, above=())))

    def put_whole(self, name: str, content: bytes) -> None:
        """See ``Store.put_whole``."""
        self._replace(name, lambda file: file.write(content))

    def put_file(self, name: str, local_path: str) -> None:
        """See ``Store.put_file``."""
        with (
            writing(f"copy {local_path} to", self.join(name)),
            Path(local_path).open("rb") as source,
        ):
            self._replace(name, lambda file: shutil.copyfileobj(source, file, _COPY_BYTES))

    def create_once(self, name: str, content: bytes) -> bool:
        """See ``Store.create_once``. Unsupported where the mount has no hard links."""
        if not content:
            raise ValueError(f"create_once needs content: {name!r}")
        target = self._path(name)
        if os.path.lexists(target):
            return False
        with (
            writing("create", str(target)),
            _temporary_beside(target, lambda file: file.write(content)) as temporary,
        ):
            try:
                os.link(temporary, target)
            except FileExistsError:
                # A network mount may repeat a link whose reply was lost: two names mean ours.
                return temporary.stat().st_nlink > 1
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise CreateOnceUnsupported(
                        f"cannot create {target} exactly once: this file system has no hard links "
                        f"({error}); use a folder on another file system or an object store"
                    ) from error
                raise
            _sync_folder(target.parent)
        return True

    def copy(self, source: str, target: str) -> None:
        """See ``Store.copy``."""
        path = self._path(source)
        with reading("copy", str(path)), path.open("rb") as file:
            self._replace(target, lambda copy: shutil.copyfileobj(file, copy, _COPY_BYTES))

    def delete(self, name: str) -> None:
        """See ``Store.delete``."""
        path = self._path(name)
        with writing("delete", str(path)), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()

    def _replace(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        target = self._path(name)
        with writing("write", str(target)), _temporary_beside(target, fill) as temporary:
            temporary.replace(target)
            _sync_folder(target.parent)


@contextmanager
def _temporary_beside(target: Path, fill: Callable[[BinaryIO], object]) -> Iterator[Path]:
    """Give a filled and synced file in the target's folder; it is gone afterwards."""
    _make_folder(target.parent)
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each made durable by a sync of the folder above."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(folder)) from None
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some mounts cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _walk(
    path: Path, prefix: str, *, recursive: bool, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, ObjectStat]]:
    """Yield the files of a folder; what vanishes while we look is left out."""
    try:
        folder = path.stat()
        entries = list(os.scandir(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    identity = (folder.st_dev, folder.st_ino)
    if identity in above:
        return
    for entry in entries:
        try:
            if entry.is_dir():
                if recursive:
                    yield from _walk(
                        Path(entry.path),
                        f"{prefix}{entry.name}/",
                        recursive=True,
                        above=(*above, identity),
                    )
            elif entry.is_file() and not _TEMPORARY.match(entry.name):
                yield prefix + entry.name, ObjectStat(entry.stat().st_size, None)
            elif entry.is_symlink():
                # A link to nothing is listed: reading it says so, leaving it out would hide it.
                yield prefix + entry.name, ObjectStat(0, None)
        except FileNotFoundError:
            continue
