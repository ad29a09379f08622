"""Object stores (S3, Google Cloud Storage, Azure) and memory: a single put is whole by nature.

Create-once is a put with the condition "if there is none", in one request. Promises what ``Store``
says. Does not: decide how long a driver waits where it asks again by itself (Google's does).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import suppress
from typing import Any

import fsspec

from rdu_batch.storage.remote_store import RemoteStore
from rdu_batch.storage.retries import Retries
from rdu_batch.storage.store_errors import http_status

_MAX_CONFLICTS = 8
_FIRST_PAUSE_S = 0.05
#: The server copies in one step. Azure's copy may still run when the call returns: not here.
_COPIES_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "memory"})


def open_object_store(url: str, protocol: str, options: dict[str, Any]) -> RemoteStore:
    """Open a bucket's or a container's folder with these options of its driver."""
    if protocol == "memory":
        return MemoryStore(url, protocol, *fsspec.url_to_fs(url, **options))
    options = {"use_listings_cache": False, **options}
    if protocol in ("s3", "s3a"):
        # One policy of asking again, ours: the driver's would multiply it.
        settings = {"retries": {"mode": "standard", "total_max_attempts": 1}}
        options["config_kwargs"] = {**settings, **options.get("config_kwargs", {})}
    filesystem, path = fsspec.url_to_fs(url, **options)
    if protocol in ("s3", "s3a"):
        filesystem.retries = 1
        return ObjectStore(url, protocol, filesystem, path)
    if protocol in ("gs", "gcs"):
        # It logs each failure with a traceback; what matters of it is in the error.
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())
        return GoogleStore(url, protocol, filesystem, path)
    # Azure's client waits for minutes where it may; not every version of it can be told.
    with suppress(AttributeError):
        filesystem.service_client._config.retry_policy.total_retries = 0  # noqa: SLF001
    return ObjectStore(url, protocol, filesystem, path)


class ObjectStore(RemoteStore):
    """A folder in an object store whose put can carry a condition."""

    create_once_by = "a conditional put"
    puts_whole = True

    def _create(self, path: str, content: bytes) -> bool:
        """A conflict of two writers (409) says neither yes nor no, and is tried again."""
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
                    raise
                time.sleep(_FIRST_PAUSE_S * 2**attempt * random.random())  # noqa: S311
            else:
                return True
        raise AssertionError("the last attempt returns or raises")

    def _copy(self, source_path: str, target_path: str) -> None:
        if self.protocol in _COPIES_WHOLE:
            self._filesystem.cp_file(source_path, target_path)
        else:
            super()._copy(source_path, target_path)


class GoogleStore(ObjectStore):
    """A folder in Google Cloud Storage, whose driver asks six times by itself."""

    retries = Retries(num_tries=1)


class MemoryStore(ObjectStore):
    """Objects in this process's memory, for tests and dry runs; other processes see nothing."""

    create_once_by = "a lock of this process"
    _lock = threading.RLock()

    def _create(self, path: str, content: bytes) -> bool:
        if self._filesystem.exists(path):
            return False
        self._filesystem.pipe_file(path, content)
        return True
