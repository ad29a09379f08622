"""A folder of the local (or a network-mounted) file system.

Files are written without a name (``O_TMPFILE``), synced, then linked to their name: whoever dies
midway leaves nothing. A name that exists is replaced through a temporary name beside it, as is all
where the file system knows no nameless files. Create-once: the link, which fails when the target
exists. Files get the umask's permissions.
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
from io import FileIO
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
#: What open(O_TMPFILE) ends with where the file system or the kernel does not know it.
_NO_NAMELESS_FILES = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EISDIR, errno.EINVAL})
_COPY_BYTES = 8 * 2**20


class LocalStore(Store):
    """A local folder; ``url`` is its absolute path. See ``Store`` for what the methods promise."""

    protocol = "file"
    create_once_by = "a hard link"

    def __init__(self, path: str) -> None:
        # Not resolve(): the user's own path is what messages should name.
        self.url = os.path.abspath(Path(path or "/").expanduser())  # noqa: PTH100

    def _path(self, name: str) -> Path:
        return Path(self.url, check_name(name))

    def _place(self, name: str) -> str:
        """The path as text: a ``Path`` costs as much as looking at the file."""
        return f"{self.url.rstrip('/')}/{check_name(name)}"

    def stat(self, name: str) -> ObjectStat:
        """See ``Store.stat``. Local files have no etag."""
        path = self._place(name)
        with reading("look at", path):
            found = os.stat(path)  # noqa: PTH116
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
        path = self._place(name)
        with reading("read", path), open(path, "rb", buffering=0) as file:  # noqa: PTH123
            if start:
                file.seek(start)
            content = _read_to(file, end - start)
        if len(content) != end - start:
            raise StoreError(
                f"cannot read {path}: wanted bytes {start} to {end}, it ends after "
                f"{start + len(content)}; it was cut short while in use"
            )
        return content

    def read_all_with_stat(self, name: str, size_bytes: int) -> tuple[bytes, ObjectStat]:
        """See ``Store.read_all_with_stat``. The file is opened once and its path walked once."""
        path = self._place(name)
        with reading("read", path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = os.read(fd, size_bytes)
                after = os.fstat(fd)
            finally:
                os.close(fd)
            if not stat.S_ISREG(after.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        if len(content) != size_bytes:
            raise StoreError(
                f"cannot read {path}: wanted {size_bytes} bytes, found {len(content)}; it was cut "
                "short while in use"
            )
        return content, ObjectStat(after.st_size, None)

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
            _filled_file(target.parent, lambda file: file.write(content)) as file,
        ):
            try:
                file.link(target.name)
            except FileExistsError:
                # A network mount may repeat a link whose reply was lost: one name more means ours.
                return file.is_linked()
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise CreateOnceUnsupported(
                        f"cannot create {target} exactly once: this file system has no hard links "
                        f"({error}); use a folder on another file system or an object store"
                    ) from error
                raise
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

    def delete_folder(self, folder: str) -> None:
        """See ``Store.delete_folder``. The folder itself goes, the one above it stays."""
        path = self._path(folder)
        with writing("delete", str(path)), suppress(FileNotFoundError):
            shutil.rmtree(path)

    def _replace(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        target = self._path(name)
        with writing("write", str(target)), _filled_file(target.parent, fill) as file:
            file.replace(target.name)


class _FilledFile:
    """A written and synced file in a folder, which waits for its name.

    Args:
        folder: Descriptor of the folder.
        file: Descriptor of the file.
        temporary: The file's name for now; None while it has none.
    """

    def __init__(self, folder: int, file: int, temporary: str | None) -> None:
        self.folder, self.file, self.temporary = folder, file, temporary
        self._num_links = 0 if temporary is None else 1

    def link(self, name: str) -> None:
        """Give the file this name; FileExistsError where the name is taken."""
        source = f"/proc/self/fd/{self.file}" if self.temporary is None else self.temporary
        os.link(source, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def is_linked(self) -> bool:
        """Whether ``link`` took effect."""
        return os.fstat(self.file).st_nlink > self._num_links

    def replace(self, name: str) -> None:
        """Give the file this name, whatever had it before."""
        if self.temporary is None:
            with suppress(FileExistsError):
                self.link(name)
                return
            temporary = _temporary_name()
            self.link(temporary)
            self.temporary = temporary
        os.replace(self.temporary, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)


@contextmanager
def _filled_file(path: Path, fill: Callable[[BinaryIO], object]) -> Iterator[_FilledFile]:
    """Give a filled file; afterwards the folder is synced and no temporary name is left."""
    _make_folder(path)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor, temporary = _open_new(folder)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            filled = _FilledFile(folder, descriptor, temporary)
            try:
                fill(file)
                file.flush()
                os.fsync(descriptor)
                yield filled
            finally:
                if filled.temporary is not None:
                    with suppress(FileNotFoundError):
                        os.unlink(filled.temporary, dir_fd=folder)
        _sync(folder)
    finally:
        os.close(folder)


def _open_new(folder: int) -> tuple[int, str | None]:
    """Open a new file in a folder: its descriptor and, where it has to have one, its name."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o666, dir_fd=folder), None
    except OSError as error:
        if error.errno not in _NO_NAMELESS_FILES:
            raise
    temporary = _temporary_name()
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    return os.open(temporary, flags, 0o666, dir_fd=folder), temporary


def _temporary_name() -> str:
    return f".{secrets.token_hex(8)}.tmp"


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
    descriptor = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some mounts cannot sync a folder
            raise


def _read_to(file: FileIO, num_bytes: int) -> bytes:
    """So many bytes from here on, fewer only at the end; the system may give them in parts."""
    content = file.read(num_bytes) or b""
    if len(content) == num_bytes or not content:
        return content
    parts = [content]
    num_missing = num_bytes - len(content)
    while num_missing and (part := file.read(num_missing)):
        parts.append(part)
        num_missing -= len(part)
    return b"".join(parts)


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
