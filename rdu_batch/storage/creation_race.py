"""Several creators of one name at the same time, and whether the store told them the truth."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdu_batch.storage.store import Store


def race_to_create(store: Store, name: str, contents: Sequence[bytes]) -> list[bool]:
    """Create one name from as many threads as there are contents, all let go at once.

    A driver's requests of several threads go over connections of their own.

    Returns:
        What each creator was told, in the order of the contents.

    Raises:
        StoreError: the store failed; ``CreateOnceUnsupported`` where it cannot create once.
    """
    barrier = threading.Barrier(len(contents))

    def create(content: bytes) -> bool:
        barrier.wait()
        return store.create_once(name, content)

    with ThreadPoolExecutor(len(contents)) as creators:
        return list(creators.map(create, contents))


def broken_race(told: Sequence[bool], contents: Sequence[bytes], stands: bytes) -> str | None:
    """Say what is wrong with the outcome of a race; None if exactly one creator won.

    All may have been told False: the winner's reply was lost, and the object that stands is there
    as the driver asks again. Then what stands must be one creator's content.
    """
    if told.count(True) > 1:
        return f"{told.count(True)} of {len(told)} creators of one name were told that they won"
    winners = [contents[told.index(True)]] if True in told else contents
    if stands not in winners:
        return "what stands is not the content of the creator that won"
    return None
