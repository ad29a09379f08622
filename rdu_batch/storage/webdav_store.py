"""A folder on a WebDAV server (webdav4's driver).

``webdav://host:port/folder`` speaks http, ``webdavs://`` https; ``dav`` and ``davs`` are the same.
The storage options ``username`` and ``password`` are for basic authentication; ``base_url`` is used
where it is given, and then the URL is a path below it.

An object is written under a temporary name beside it, then moved over its own. The standard has
servers delete the target before the move, so an object that is being replaced can be missing for an
instant: a reader looks again before it says so. There is no create-once: ``Overwrite: F`` would be
the request for it, but servers look first and move then, and two racers can both win (WsgiDAV, when
the machine is busy). So an output needs ``output.single_writer``.

Etags are not used: servers make them of a time in whole seconds.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import fsspec

from rdu_batch.storage.remote_store import RemoteStore
from rdu_batch.storage.store import ObjectStat
from rdu_batch.storage.store_errors import http_status
from rdu_batch.storage.temporary_names import is_temporary, temporary_beside

T = TypeVar("T")

_TIMEOUT_S = 60.0
#: How long a reader waits between its looks for an object that seems to be missing: a busy server
#: may take tenths of a second from the delete to the move. Whoever asks only whether an object is
#: there, as each create-once does, takes the first few looks.
_LOOK_PAUSES_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
_STAT_PAUSES_S = _LOOK_PAUSES_S[:3]


def open_webdav_store(url: str, protocol: str, options: dict[str, Any]) -> RemoteStore:
    """Open a folder on a server. ``ImportError`` if webdav4 is not installed."""
    options = {"timeout": _TIMEOUT_S, "retry": False, **options}
    user = options.pop("username", None)
    password = options.pop("password", None)
    if user is not None:
        options["auth"] = (user, password or "")
    path = url.partition("://")[2]
    if "base_url" not in options:
        parts = urlsplit(url)
        scheme = "https" if protocol.endswith("s") else "http"
        options["base_url"] = f"{scheme}://{parts.netloc}"
        path = parts.path
    filesystem = fsspec.get_filesystem_class("webdav")(**options)
    _quote_paths(filesystem.client)
    return WebdavStore(url, protocol, filesystem, path.lstrip("/"))


def _quote_paths(client: Any) -> None:
    """Have the driver's client quote paths: it leaves characters that mean something in a URL."""
    join_url = type(client).join_url

    def quoting(path: str, add_trailing_slash: bool = False) -> Any:
        return join_url(client, quote(path), add_trailing_slash=add_trailing_slash)

    client.join_url = quoting


class WebdavStore(RemoteStore):
    """See the module; ``Store`` says what the methods promise."""

    puts_whole = True

    def _stat(self, path: str) -> ObjectStat:
        return self._look(lambda: super(WebdavStore, self)._stat(path), _STAT_PAUSES_S)

    def _stat_of(self, info: dict[str, Any]) -> ObjectStat:
        return ObjectStat(int(info.get("size") or 0), None)

    def _read(self, path: str) -> bytes:
        return self._look(lambda: self._get(path, {}))

    def _read_range(self, path: str, start: int, end: int) -> bytes:
        return self._look(lambda: self._get(path, {"Range": f"bytes={start}-{end - 1}"}))

    def _get(self, path: str, headers: dict[str, str]) -> bytes:
        super()._stat(path)  # a folder is no object, though servers show it as a page
        client = self._filesystem.client
        reply = client.http.get(client.join_url(path), headers=headers)
        if reply.status_code == 404:
            raise FileNotFoundError(path)
        reply.raise_for_status()
        return bytes(reply.content)

    def _look(self, do: Callable[[], T], pauses_s: Sequence[float] = _LOOK_PAUSES_S) -> T:
        for pause_s in pauses_s:
            with suppress(FileNotFoundError):
                return do()
            time.sleep(pause_s)
        return do()

    def _list(self, base: str, *, recursive: bool) -> list[dict[str, Any]]:
        found = super()._list(base, recursive=recursive)
        return [info for info in found if not is_temporary(info.get("name", ""))]

    def _put(self, path: str, content: bytes) -> None:
        self._write(path, lambda: io.BytesIO(content))

    def _put_file(self, path: str, local_path: str) -> None:
        self._write(path, lambda: open(local_path, "rb"))  # noqa: PTH123, SIM115

    def _write(self, path: str, open_content: Callable[[], Any]) -> None:
        client = self._filesystem.client
        temporary = temporary_beside(path)
        try:
            self._upload(temporary, open_content)
            client.move(temporary, path, overwrite=True)
        except Exception:  # the driver has classes of its own
            with suppress(Exception):  # the first failure says more than this one
                client.remove(temporary)
            raise

    def _upload(self, path: str, open_content: Callable[[], Any]) -> None:
        client = self._filesystem.client
        try:
            with open_content() as content:
                client.upload_fileobj(content, path, overwrite=True)
        except Exception as error:
            if http_status(error) not in (403, 404, 409) and not isinstance(
                error.__cause__ or error, FileNotFoundError
            ):
                raise
            self._filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            with open_content() as content:
                client.upload_fileobj(content, path, overwrite=True)

    def delete_folder(self, folder: str) -> None:
        """See ``Store.delete_folder``; folders that are empty then are removed, too."""
        super().delete_folder(folder)
        base = self._path(folder.strip("/")) if folder.strip("/") else self._prefix.rstrip("/")
        with suppress(Exception):  # the objects are gone, which is what was asked for
            if not self.list_names(folder, recursive=True):
                self._filesystem.client.remove(base)
