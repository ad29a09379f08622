"""Driver epochs: a number that each driver of an output takes for itself alone.

An epoch is taken by creating its object once, always the next number after the last, so that no
number is ever left out. What the epoch reported when it ended is created once, too. An epoch
without a result was killed, or its driver still lives (see ``takeover.py``).
"""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rdu_batch.errors import ObjectMissing
from rdu_batch.runner.process_mark import ProcessMark, mark_of_this_process
from rdu_batch.runner.run_layout import (
    DRIVERS_FOLDER,
    RESULTS_FOLDER,
    driver_epoch,
    epoch_result,
    numbers_in,
)
from rdu_batch.storage.store import Store

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Owner:
    """The driver that took an epoch, as the epoch's object tells."""

    epoch: int
    #: Unique to the driver: tells its object from one of the same number in a later output.
    token: str
    host: str
    pid: int
    #: How often it says that it will move its heartbeat; None if it never said.
    heartbeat_s: float | None
    #: None where the driver's system does not tell.
    process: ProcessMark | None
    #: Of Ray's Jobs API; None for a driver that was started in another way.
    submission_id: str | None = None

    def __str__(self) -> str:
        """For messages: ``epoch 3 (host a, pid 17)``."""
        return f"epoch {self.epoch} (host {self.host}, pid {self.pid})"

    def to_bytes(self) -> bytes:
        """The content of the epoch's object."""
        process = self.process.to_json() if self.process else None
        return _to_bytes({"version": FORMAT_VERSION, **vars(self), "process": process})


def take_epoch(
    store: Store, number: int, heartbeat_s: float, submission_id: str | None = None
) -> Owner | None:
    """Take this epoch; None if another driver has it.

    Raises:
        CreateOnceUnsupported: the store has no create-once. Ends the job (exit 6).
    """
    owner = Owner(
        epoch=number,
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        pid=os.getpid(),
        heartbeat_s=heartbeat_s,
        process=mark_of_this_process(),
        submission_id=submission_id,
    )
    content = owner.to_bytes()
    # What stands there decides: a lost reply makes a store say that ours was another's.
    return owner if store.create_or_read(driver_epoch(number), content) == content else None


def read_owner(store: Store, epoch: int) -> Owner | None:
    """Who took this epoch; None if nobody did. What its object does not say is left empty."""
    try:
        content = store.read(driver_epoch(epoch))
    except ObjectMissing:
        return None
    document = read_object(content)
    heartbeat_s = document.get("heartbeat_s")
    is_time = isinstance(heartbeat_s, float | int) and 0 < heartbeat_s < math.inf
    return Owner(
        epoch=epoch,
        token=str(document.get("token", "")),
        host=str(document.get("host", "unknown")),
        pid=document["pid"] if isinstance(document.get("pid"), int) else 0,
        heartbeat_s=heartbeat_s if is_time else None,
        process=ProcessMark.from_json(document.get("process")),
        submission_id=document.get("submission_id"),
    )


def last_epoch(store: Store) -> int:
    """The highest epoch that was taken; 0 if none was."""
    return max(numbers_in(store.list_names(DRIVERS_FOLDER)), default=0)


def has_result(store: Store, epoch: int) -> bool:
    """Whether this epoch reported its end."""
    return store.exists(epoch_result(epoch))


def write_result(store: Store, epoch: int, result: dict[str, Any]) -> None:
    """Record what this epoch reports; the first report of an epoch stands."""
    document = {"version": FORMAT_VERSION, "epoch": epoch, **result}
    # Not create_once: after a lost reply the report stands, and the run must not fail over it.
    store.create_or_read(epoch_result(epoch), _to_bytes(document))


def last_result(store: Store) -> dict[str, Any] | None:
    """The report of the highest epoch that made one; None if none did."""
    numbers = numbers_in(store.list_names(RESULTS_FOLDER))
    return read_result(store, numbers[-1]) if numbers else None


def read_result(store: Store, epoch: int) -> dict[str, Any] | None:
    """What this epoch reported; None if it reported nothing."""
    try:
        result: dict[str, Any] = json.loads(store.read(epoch_result(epoch)))
    except ObjectMissing:
        return None
    return result


def owners_from_last(store: Store) -> Iterator[Owner]:
    """Who took each epoch, the last first; read one by one."""
    for number in range(last_epoch(store), 0, -1):
        owner = read_owner(store, number)
        if owner is not None:
            yield owner


def read_object(content: bytes) -> dict[str, Any]:
    """A JSON object; empty if these bytes are none. For objects that only inform."""
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _to_bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"
