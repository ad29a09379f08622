"""Taking an output over: waits until no living driver holds it, or says which one does.

An epoch without a result was killed, or its driver lives. Where both ran on this machine the
process table tells at once; elsewhere its heartbeat is watched for a few of its intervals.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rdu_batch.errors import OutputOwned
from rdu_batch.runner.epochs import Owner, has_result, last_epoch, read_owner
from rdu_batch.runner.heartbeat import (
    HEARTBEAT_S,
    Look,
    Verdict,
    judge,
    read_count,
    takeover_s,
)
from rdu_batch.runner.process_mark import is_gone
from rdu_batch.storage.store import Store

#: Longest time between two looks at another driver's heartbeat.
LOOK_INTERVAL_S = 1.0


def wait_until_free(
    store: Store,
    phase: Callable[[str], None],
    *,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Wait until the last epoch's driver has ended, is gone, or has stood still for long enough.

    Args:
        store: the output.
        phase: told what is being waited for.
        now_s: monotonic seconds. Not a clock that runs on while the machine sleeps: a driver that
            sleeps on the same machine does not beat.
        sleep: waits.

    Returns:
        The number of the last epoch, 0 if there is none. The next one is free to be taken; another
        driver may be first.

    Raises:
        OutputOwned: the last epoch's heartbeat moves. Ends the job (exit 14).
    """
    watched: Owner | None = None
    looks: list[Look] = []
    while True:
        number = last_epoch(store)
        if number == 0 or has_result(store, number):
            return number
        if watched is None or watched.epoch != number:
            watched, looks = read_owner(store, number), []
            if watched is None:  # listed, then gone: the output is being emptied
                sleep(LOOK_INTERVAL_S)
                continue
        if watched.process is not None and is_gone(watched.process):
            phase(f"{watched} was killed; going on from what it left")
            return number
        heartbeat_s = watched.heartbeat_s or HEARTBEAT_S
        if not looks:
            phase(
                f"another driver, {watched}, took this output and has not reported its end; "
                f"watching for up to {takeover_s(heartbeat_s):.0f} s whether it lives"
            )
        looks.append(Look(now_s(), read_count(store, number)))
        verdict = judge(looks, heartbeat_s)
        if verdict is Verdict.MOVES:
            raise _owned(store, watched, looks)
        if verdict is Verdict.STANDS:
            phase(f"the heartbeat of {watched} stands still; taking over")
            return number
        sleep(min(LOOK_INTERVAL_S, heartbeat_s / 4))


def _owned(store: Store, owner: Owner, looks: list[Look]) -> OutputOwned:
    first, last = looks[0], looks[-1]
    moved = f"moved from {first.count or 0} to {last.count} within {last.at_s - first.at_s:.1f} s"
    return OutputOwned(
        f"{store.url} belongs to another driver that lives: {owner}; its heartbeat {moved} of "
        "watching. Wait for its end, stop it there and run this again, or choose another "
        f"output.url. `rdu-batch status {store.url}` tells where it stands."
    )
