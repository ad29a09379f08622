"""Driver epochs: a number that each driver of an output takes for itself alone.

An epoch is taken by creating its object once; what the epoch reported when it ended is created
once, too. An epoch without a result was killed.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from rdu_batch.runner.run_layout import (
    DRIVERS_FOLDER,
    RESULTS_FOLDER,
    driver_epoch,
    epoch_result,
    numbers_in,
)
from rdu_batch.storage.store import Store


def take_epoch(store: Store) -> int:
    """Take the lowest epoch above all that were ever taken.

    Raises:
        CreateOnceUnsupported: the store has no create-once. Ends the job (exit 6).
    """
    owner = {"version": 1, "host": socket.gethostname(), "pid": os.getpid()}
    epoch = max(numbers_in(store.list_names(DRIVERS_FOLDER)), default=0) + 1
    while not store.create_once(driver_epoch(epoch), _to_bytes({**owner, "epoch": epoch})):
        epoch += 1
    return epoch


def write_result(store: Store, epoch: int, result: dict[str, Any]) -> None:
    """Record what this epoch reports; the first report of an epoch stands."""
    store.create_once(epoch_result(epoch), _to_bytes({"version": 1, "epoch": epoch, **result}))


def last_result(store: Store) -> dict[str, Any] | None:
    """The report of the highest epoch that made one; None if none did."""
    numbers = numbers_in(store.list_names(RESULTS_FOLDER))
    if not numbers:
        return None
    result: dict[str, Any] = json.loads(store.read(epoch_result(numbers[-1])))
    return result


def last_epoch(store: Store) -> int:
    """The highest epoch that was taken; 0 if none was."""
    return max(numbers_in(store.list_names(DRIVERS_FOLDER)), default=0)


def _to_bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"
