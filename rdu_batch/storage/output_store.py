"""The store of an output: opened for the job's commit protocol, and checked before the job begins.

The protocol has one request that stores differ in, ``create_once``. Each kind of store keeps it in
its own way (see ``Store.create_once_by``); ``open_output`` gives the right one, so that nobody
above knows which it is.
"""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import suppress

from rdu_batch.errors import CreateOnceUnsupported, ObjectMissing, StoreError
from rdu_batch.storage.creation_race import broken_race, race_to_create
from rdu_batch.storage.failpoint import FAULT_VARIABLE
from rdu_batch.storage.store import ObjectStat, Store, open_store


def open_output(url: str, *, single_writer: bool = False) -> Store:
    """Open an output folder for its driver or for a worker.

    Args:
        url: of the folder; see ``open_store``.
        single_writer: the user promises that no two runs work on this output at the same time;
            all of a run's processes must be told the same.

    Where ``RDU_BATCH_FAULT`` is set, the store fails on purpose (see ``failpoint.py``).

    Raises:
        StoreDriverMissing: the driver is not installed; the message names the extra.
        StoreError: the protocol is unknown, or the driver refuses the URL.
    """
    store = open_store(url)
    if single_writer:
        store = SingleWriterStore(store)
    if FAULT_VARIABLE in os.environ:
        from rdu_batch.storage.faults import faulty_store

        return faulty_store(store, os.environ[FAULT_VARIABLE])
    return store


def check_output(store: Store, folder: str) -> None:
    """Check, in about five requests, that a store creates objects exactly once.

    Two creators race for one new name in the folder, a third comes late. A store that ignores the
    condition, or has none, is found out here; ``probe_store`` looks closer.

    Raises:
        CreateOnceUnsupported: it does not; says what was seen and what to do. Ends the job.
        StoreError: the store failed, or cannot be written.
    """
    try:
        problem = _broken_promise(store, f"{folder.strip('/')}/{secrets.token_hex(8)}")
    except CreateOnceUnsupported as error:
        problem = str(error)
    if problem is None:
        return
    way_out = (
        ", or set `output.single_writer: true` if you make sure that no two runs ever work on "
        "this output at the same time"
    )
    # Without whole writes, or with the promise given already, the promise is no way out.
    is_way_out = store.puts_whole and not isinstance(store, SingleWriterStore)
    raise CreateOnceUnsupported(
        f"{store.url} does not create objects exactly once, as commit records must be: {problem}. "
        f"See `rdu-batch probe {store.url}` for all it guarantees; choose another output.url"
        f"{way_out if is_way_out else ''}"
    )


def _broken_promise(store: Store, name: str) -> str | None:
    """What the store did wrong about one name; None if nothing. Removes what it wrote."""
    contents = [secrets.token_hex(16).encode() for _ in range(3)]
    try:
        told = [*race_to_create(store, name, contents[:2]), store.create_once(name, contents[2])]
        if told[2]:
            return "a create over an existing object said that it had won"
        return broken_race(told[:2], contents[:2], store.read(name))
    except ObjectMissing:
        return "an object could not be read right after it was created"
    finally:
        with suppress(StoreError):  # what was seen matters more than a crumb
            store.delete(name)


class SingleWriterStore(Store):
    """A store whose ``create_once`` looks first and then writes; all else is the store's own.

    Sound while one run at a time works on the output. Threads of one process do not race, but two
    workers may commit one shard in the instant between the look and the write: two copies of a late
    task, or a worker that outlived its driver and passed its last look at the epoch. Then both may
    hold themselves for the winner. Each one's record names whole sealed files, and the last record
    stands. Both publish the same bytes, but where a row killed or stalled a session at one of them:
    then a part can be published that the record does not name, and ``verify`` finds it. Two drivers
    at once can do this to every shard, and both believe that they own the output.
    """

    #: One for all: stores of one process may be the same folder.
    _lock = threading.RLock()

    def __init__(self, store: Store) -> None:
        self.url = store.url
        self.protocol = store.protocol
        self.puts_whole = store.puts_whole
        self.create_once_by = "a look before the write, by the only run on this output"
        self._store = store

    def create_once(self, name: str, content: bytes) -> bool:
        """See ``Store.create_once``, and this class for who may call it at the same time."""
        if not content:
            raise ValueError(f"create_once needs content: {name!r}")
        with self._lock:
            if self._store.exists(name):
                return False
            self._store.put_whole(name, content)
            # Makes the instant small in which two could win.
            return self._store.read(name) == content

    def stat(self, name: str) -> ObjectStat:
        """See ``Store.stat``."""
        return self._store.stat(name)

    def read(self, name: str) -> bytes:
        """See ``Store.read``."""
        return self._store.read(name)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """See ``Store.read_range``."""
        return self._store.read_range(name, start, end)

    def list_objects(
        self, folder: str = "", *, recursive: bool = False
    ) -> list[tuple[str, ObjectStat]]:
        """See ``Store.list_objects``."""
        return self._store.list_objects(folder, recursive=recursive)

    def put_whole(self, name: str, content: bytes) -> None:
        """See ``Store.put_whole``."""
        self._store.put_whole(name, content)

    def put_file(self, name: str, local_path: str) -> None:
        """See ``Store.put_file``."""
        self._store.put_file(name, local_path)

    def copy(self, source: str, target: str) -> None:
        """See ``Store.copy``."""
        self._store.copy(source, target)

    def delete(self, name: str) -> None:
        """See ``Store.delete``."""
        self._store.delete(name)

    def delete_folder(self, folder: str) -> None:
        """See ``Store.delete_folder``."""
        self._store.delete_folder(folder)
