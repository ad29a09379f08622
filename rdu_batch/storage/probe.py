"""A look whether a store really keeps the promise of create-once.

Some S3 servers take a conditional put and ignore its condition, so no driver can tell. The probe
leaves nothing behind but, at worst, one small object under the folder it is given.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from rdu_batch.errors import CreateOnceUnsupported, StoreError

if TYPE_CHECKING:
    from rdu_batch.storage.store import Store


def check_create_once(store: Store, folder: str) -> None:
    """Create an object under a new name in the folder, try again, and look at its content.

    Raises:
        CreateOnceUnsupported: the second try overwrote the first, or said that it had.
        StoreError: the store failed.
    """
    name = f"{folder.strip('/')}/{secrets.token_hex(8)}"
    try:
        first = store.create_once(name, b"first")
        second = store.create_once(name, b"second")
        if not first or second or store.read(name) != b"first":
            raise CreateOnceUnsupported(
                f"{store.url} does not create objects exactly once: of two tries on {name} the "
                f"first said {first}, the second {second}, wanted True and False; the server "
                "ignores If-None-Match, so use another store for the output"
            )
    finally:
        with suppress(StoreError):  # what the probe found matters more than its crumb
            store.delete(name)
