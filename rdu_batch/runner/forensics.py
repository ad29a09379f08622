"""Forensics: what the watching side saw of a session process's death, kept in the output.

One JSON object a death under ``_run/forensics/``: signal or exit code, peak memory, the end of its
standard error, and the row that was in progress. For people; no program reads it back, and nothing
that is published depends on it. It holds no text of a row, but what the session's libraries print
may quote a prompt, and so may a traceback: keep it as private as the inputs.

Promises: a store that fails here does not hide the death.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from rdu_batch.errors import StoreError
from rdu_batch.job.run_paths import FORENSICS_FOLDER
from rdu_batch.runner.leases import Lease, Task
from rdu_batch.runner.row_memory import RowMark
from rdu_batch.storage.store import Store


@dataclass(frozen=True)
class Death:
    """The end of one session process."""

    #: In words: ``signal SIGSEGV``, ``exit code 3``, which limit, or an error of its session.
    ended_by: str
    #: Name of the signal that ended it; ``SIGKILL`` where its watcher did.
    signal: str | None
    exit_code: int | None
    #: The row in progress; None between rows, and while the session was opened.
    row: RowMark | None
    #: Seconds since that row was begun.
    row_s: float | None
    pid: int
    #: Most memory that was resident at once, mapped files included; None if nobody saw.
    peak_memory_bytes: int | None
    #: Most memory of its own that its watcher saw, which ``limits.session_memory_bytes`` limits.
    own_memory_bytes: int | None
    #: The session's own error with its traceback, if that is what ended it.
    error: str | None
    #: The end of its standard error.
    stderr: str


@dataclass(frozen=True)
class Scene:
    """Where a session died: whose it was and what it was doing."""

    epoch: int
    worker_id: int
    #: None while the session was opened.
    task: Task | None


def forensics_name(scene: Scene, row: int | None) -> str:
    """Name of the object; a worker has one session and a lease runs once, so it is unique."""
    task = scene.task
    if isinstance(task, Lease):
        where = f"l{task.lease_id:06d}-" + ("between" if row is None else f"r{row:012d}")
    else:
        doing = "open" if task is None else f"seal-{task.shard:05d}"
        where = f"w{scene.worker_id:06d}-{doing}"
    return f"{FORENSICS_FOLDER}/e{scene.epoch:06d}-{where}.json"


def write_forensics(store: Store, scene: Scene, death: Death) -> None:
    """Keep what is known of a death; best effort, whatever the store does."""
    task = scene.task
    mark = death.row
    row = None
    if mark is not None:
        row = {"row": mark.ordinal, "file": mark.file_index, "path": mark.path, "line": mark.line}
    document = {
        "epoch": scene.epoch,
        "worker": scene.worker_id,
        "task": None if task is None else {"kind": type(task).__name__, **asdict(task)},
        **asdict(death),
        "row": row,
        "host": socket.gethostname(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    content = json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    with suppress(StoreError):
        store.put_whole(forensics_name(scene, mark.ordinal if mark else None), content)
