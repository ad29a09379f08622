"""Attempts: the solo tries of suspect rows, as objects that outlive every process.

A row that was in progress when its session died is a suspect and runs alone. An object ``begun``
precedes each such try; when the session dies of the row again, alone, whoever watched it adds a
second object, named by the reason. Their names say everything, so a resume needs one listing.

What a resume makes of them:

- a row with any of them is a suspect: it runs alone, so its neighbours are spared from the start;
- a strike is a death that somebody saw: one object with a reason is one strike, in whichever epoch.
  A try that was only begun is none. Nobody knows how it ended; if a lost actor, node or driver
  counted, a slow row that is preempted often enough would become a dead letter, and the bytes of
  the output would depend on who was killed when.

So what a kill can cost is the death of a try that was not written down yet: the row is tried once
more. A row that takes its watcher along (a whole node) each time is never given up; the names tell
which one it is.

Objects stay when a row gets an outcome: they count only as long as it has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from contextlib import suppress

from rdu_batch.errors import StoreError
from rdu_batch.job.records import Reason
from rdu_batch.runner.leases import Lease
from rdu_batch.runner.run_layout import ATTEMPTS_FOLDER
from rdu_batch.runner.shard_progress import RowRange
from rdu_batch.storage.store import Store

_BEGUN = "begun"
_NAME = re.compile(
    rf"{ATTEMPTS_FOLDER}/(?P<shard>\d+)/(?P<row>\d+)-e(?P<epoch>\d+)-l(?P<lease>\d+)"
    rf"\.(?P<what>{_BEGUN}|{Reason.SESSION_KILLED}|{Reason.ROW_TIMEOUT})\.json"
)


def is_solo_try(lease: Lease) -> bool:
    """Whether a lease is a suspect row to be tried alone, not one to be given up."""
    return lease.is_suspect and lease.dead_reason is None


def begin_attempt(store: Store, lease: Lease, epoch: int) -> None:
    """Note a solo try before it is made.

    Raises:
        StoreError: it could not be noted, so it must not be made. Ends the job.
    """
    store.put_whole(_name(lease, epoch, _BEGUN), _content(lease, epoch))


def note_strike(store: Store, lease: Lease, epoch: int, *, timed_out: bool) -> None:
    """Note that the session died of the row, alone; best effort.

    This epoch's driver counts the strike itself. Where the store fails, a resume tries the row once
    more than it would have.
    """
    reason = Reason.ROW_TIMEOUT if timed_out else Reason.SESSION_KILLED
    with suppress(StoreError):
        store.put_whole(_name(lease, epoch, str(reason)), _content(lease, epoch))


def read_suspects(store: Store, committed: Collection[int]) -> dict[int, list[RowRange]]:
    """The rows that were ever tried alone, by shard and in order, with their strikes.

    Args:
        store: the output.
        committed: shards that nobody asks about any more.
    """
    found: dict[tuple[int, int], list[tuple[int, int, str]]] = {}
    for name in store.list_names(ATTEMPTS_FOLDER, recursive=True):
        match = _NAME.fullmatch(name)
        if match is not None and int(match["shard"]) not in committed:
            when = int(match["epoch"]), int(match["lease"]), match["what"]
            found.setdefault((int(match["shard"]), int(match["row"])), []).append(when)
    suspects: dict[int, list[RowRange]] = {}
    for (shard, row), tries in sorted(found.items()):
        reasons = [what for *_, what in sorted(tries) if what != _BEGUN]
        reason = reasons[-1] if reasons else ""
        suspect = RowRange(row, row + 1, len(reasons), reason, is_suspect=True)
        suspects.setdefault(shard, []).append(suspect)
    return suspects


def _name(lease: Lease, epoch: int, what: str) -> str:
    # A lease runs at most once, so the name is this try's alone.
    return (
        f"{ATTEMPTS_FOLDER}/{lease.shard:05d}/{lease.first_row:012d}"
        f"-e{epoch:06d}-l{lease.lease_id:06d}.{what}.json"
    )


def _content(lease: Lease, epoch: int) -> bytes:
    document = {"row": lease.first_row, "epoch": epoch, "lease": lease.lease_id}
    return json.dumps(document).encode() + b"\n"
