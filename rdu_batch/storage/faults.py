"""A store that fails on purpose at one chosen call; see ``failpoint.py`` for who asks for it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rdu_batch.storage.failpoint import (
    WRITES,
    Act,
    Call,
    OpenFailpoint,
    Role,
    open_failpoint,
    strike_around,
)
from rdu_batch.storage.store import ObjectStat, Store

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def faulty_store(store: Store, text: str) -> Store:
    """Put the failpoint that the environment asks for around an output's store.

    Raises:
        UsageError: the text is no failpoint. Ends the job (exit 2).
    """
    failpoint = open_failpoint(text)
    return FaultyStore(store, failpoint, failpoint.next_role())


class FaultyStore(Store):
    """A store that keeps a journal, and fails at one call. Each call is the inner store's own."""

    def __init__(self, store: Store, failpoint: OpenFailpoint, role: Role) -> None:
        self.url = store.url
        self.protocol = store.protocol
        self.create_once_by = store.create_once_by
        self.puts_whole = store.puts_whole
        self._store = store
        self._failpoint = failpoint
        self._role = role

    def stat(self, name: str) -> ObjectStat:
        """See ``Store.stat``."""
        return self._reading("stat", name, lambda: self._store.stat(name))

    def read(self, name: str) -> bytes:
        """See ``Store.read``."""
        return self._reading("read", name, lambda: self._store.read(name), _sha256)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """See ``Store.read_range``."""
        return self._reading("read_range", name, lambda: self._store.read_range(name, start, end))

    def list_objects(
        self, folder: str = "", *, recursive: bool = False
    ) -> list[tuple[str, ObjectStat]]:
        """See ``Store.list_objects``; a stale one leaves out what was written last."""
        act = self._failpoint.act_at(self._role, "list_objects", folder)

        def listed() -> list[tuple[str, ObjectStat]]:
            found = self._store.list_objects(folder, recursive=recursive)
            if act is Act.HIDE_ALL:
                return []
            return self._without_newest(found) if act is Act.HIDE_NEWEST else found

        return strike_around(
            self._failpoint,
            act,
            self._call("list_objects", folder),
            listed,
            lambda found, end: Call(self._role, "list_objects", folder, end, num_listed=len(found)),
        )

    def put_whole(self, name: str, content: bytes) -> None:
        """See ``Store.put_whole``."""
        self._writing(
            "put_whole", name, lambda: content, lambda: self._store.put_whole(name, content)
        )

    def put_file(self, name: str, local_path: str) -> None:
        """See ``Store.put_file``."""
        content = Path(local_path).read_bytes
        self._writing("put_file", name, content, lambda: self._store.put_file(name, local_path))

    def copy(self, source: str, target: str) -> None:
        """See ``Store.copy``; the call's name is the target's."""
        self._writing(
            "copy",
            target,
            lambda: self._store.read(source),
            lambda: self._store.copy(source, target),
        )

    def create_once(self, name: str, content: bytes) -> bool:
        """See ``Store.create_once``."""
        act = self._failpoint.act_at(self._role, "create_once", name)
        is_made = strike_around(
            self._failpoint,
            act,
            self._call("create_once", name),
            lambda: self._store.create_once(name, content),
            lambda told, end: Call(self._role, "create_once", name, end, _sha256(content), told),
        )
        return False if act is Act.DENY else is_made

    def delete(self, name: str) -> None:
        """See ``Store.delete``."""
        self._reading("delete", name, lambda: self._store.delete(name))

    def _call(self, operation: str, name: str, end: str = "not done") -> Call:
        return Call(self._role, operation, name, end)

    def _reading(
        self,
        operation: str,
        name: str,
        do: Callable[[], T],
        sha256: Callable[[T], str] = lambda _result: "",
    ) -> T:
        return strike_around(
            self._failpoint,
            self._failpoint.act_at(self._role, operation, name),
            self._call(operation, name),
            do,
            lambda result, end: Call(self._role, operation, name, end, sha256(result)),
        )

    def _writing(
        self,
        operation: str,
        name: str,
        content: Callable[[], bytes],
        do: Callable[[], None],
    ) -> None:
        act = self._failpoint.act_at(self._role, operation, name)
        if act is Act.TEAR:
            half = content()[: len(content()) // 2]
            self._store.put_whole(name, half)
            self._failpoint.note(Call(self._role, operation, name, "torn", _sha256(half)))
            self._failpoint.die()
        strike_around(
            self._failpoint,
            act,
            self._call(operation, name),
            do,
            lambda _none, end: Call(self._role, operation, name, end, _sha256(content())),
        )

    def _without_newest(self, found: list[tuple[str, ObjectStat]]) -> list[tuple[str, ObjectStat]]:
        """The listing without the object that was written last, as the journal tells."""
        names = {name for name, _ in found}
        written = [
            call.name
            for call in self._failpoint.calls()
            if call.name in names and call.operation in WRITES
        ]
        return [one for one in found if one[0] != (written or [""])[-1]]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
