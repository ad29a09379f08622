"""The scratch folder of one session process, removed even when its owner was killed.

A worker's actor usually ends by SIGKILL and cannot clean up. So each folder holds a file that its
owner keeps locked, a lock that ends with the owner however it ends, and whoever opens a session
next on the machine removes the folders whose lock is free.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from pathlib import Path

_PREFIX = "rdu-batch-session-"
_LOCK = "owner"


class SessionFolder:
    """A folder under the machine's temporary one, owned by this process."""

    def __init__(self) -> None:
        """Make the folder; remove those whose owner is gone."""
        remove_orphans()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        unnamed = self.path / f"{_LOCK}.new"
        self._lock = unnamed.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Under its own name only when locked: a sweep never sees a free lock of a living owner.
        unnamed.rename(self.path / _LOCK)

    @property
    def context_file(self) -> Path:
        """What the session process is told of its job."""
        return self.path / "context.json"

    @property
    def row_file(self) -> Path:
        """The row in progress (``row_memory.py``)."""
        return self.path / "row"

    @property
    def stderr_file(self) -> Path:
        """Standard error of the session process."""
        return self.path / "stderr"

    def remove(self) -> None:
        """Remove the folder and give up the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def spool_path(folder: Path, lease_id: int) -> Path:
    """Where a lease's outcomes are written one by one, until they are durable."""
    return folder / f"outcomes-{lease_id}"


def remove_orphans() -> None:
    """Remove the folders of owners that are gone; others are left alone."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            with lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:
            # Locked by a living owner, another user's, or removed by another sweep just now.
            continue
