"""Fencing: why a driver or worker of an earlier epoch cannot change what a later one reports.

A driver can be paused at any instruction (SIGSTOP, a frozen container, a machine that sleeps) and
wake up after a later epoch has taken its output over and finished. Then it does whatever its next
instruction says, and so do its workers. No look at the store can rule that out, because the pause
may come between the look and the write. So every write is harmless by what it is:

| late write of an earlier epoch | why it changes nothing that counts |
| --- | --- |
| probe object | a name of its own, which nobody reads |
| index page | its name holds the digest of its bytes |
| plan, canary | created once: the first stands, and the late one goes on with it |
| epoch object | created once under the next number; who loses looks again |
| heartbeat | the epoch's own object; only the last epoch's is ever judged |
| segment | a name of its own (epoch, lease, sha256); holds valid outcomes of its rows: before the
  shard is committed they may serve, after that nobody lists them |
| attempt, strike, forensics | names of their own (epoch, lease): they tell what really happened |
| sealed file | a name of its attempt alone; counts only when a commit record names it |
| commit record | created once: the first stands, whoever made it; an unfinished shard may be
  committed by an earlier epoch, and a later one goes on from that record |
| part, dead letters | copied from what the standing record names: the same bytes again, whole |
| deleting segments | only those it listed, only when a commit record stands: nobody needs them. A
  later epoch that had counted on them finds rows missing, runs them again, and then the record.
  The same holds for ``gc.py`` |
| manifest, _SUCCESS | made from the plan and the commit records alone: the same bytes again |
| result | each epoch has its own; the highest epoch's counts |

The looks come on top. They make a fenced driver stop soon, exit 14, and leave everything as it is:
the heartbeat looks at each beat, the driver before manifest, _SUCCESS and result, a worker before
it stores what a lease came to. The looks also tell an epoch from one of the same number in an
output that was deleted and begun anew: its object holds another token.

Where the store has no create-once (``output.single_writer``), all of this is the user's promise.
"""

from __future__ import annotations

from rdu_batch.errors import OutputOwned
from rdu_batch.runner.epochs import last_epoch, read_owner
from rdu_batch.runner.run_layout import driver_epoch
from rdu_batch.storage.store import Store


def check_epoch(store: Store, epoch: int, token: str) -> None:
    """Check that an epoch is still the last one, and its owner's own.

    Args:
        store: the output.
        epoch: number of the epoch.
        token: of the driver that took it; empty where none did, then it is not compared.

    Raises:
        OutputOwned: a later epoch exists, or the epoch's object is another's. Ends the job.
    """
    # No number is ever left out, so the next one tells of all that are higher.
    if store.exists(driver_epoch(epoch + 1)):
        newest = read_owner(store, last_epoch(store))
        raise OutputOwned(
            f"fenced: {newest} has taken {store.url} over, because this driver (epoch {epoch}) "
            "stood still or could not reach the store. What it had finished is kept; nothing else "
            "of it counts. Do not run this again while that one lives: "
            f"`rdu-batch status {store.url}` tells where it stands."
        )
    if not token:
        return
    found = read_owner(store, epoch)
    if found is None or found.token != token:
        what = "is gone" if found is None else f"is that of another run, {found}"
        raise OutputOwned(
            f"fenced: {store.join(driver_epoch(epoch))}, which this driver created, {what}: the "
            "output was emptied while this driver ran. Leave it to the other run, or run this "
            "again when nothing else works on it."
        )
