"""What outlives a session process: its worker's account of tries, finished rows and deaths.

Lives in the worker's actor, beside the process's host. In the order that a death needs it:

1. before a suspect row runs alone, an object in ``_run/attempts/`` (``attempts.py``);
2. after a death: the strike, if the suspect died alone; the finished rows as a segment
   (``salvage.py``); what was seen, in ``_run/forensics/`` (``forensics.py``);
3. the loss, for the driver.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from rdu_batch.errors import SessionBroken, StoreError
from rdu_batch.runner.attempts import begin_attempt, is_solo_try, note_strike
from rdu_batch.runner.fencing import check_epoch
from rdu_batch.runner.forensics import Death, Scene, write_forensics
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import Answer, Lease, LeaseDone, Task, from_wire, to_wire
from rdu_batch.runner.process_memory import outlive_the_session
from rdu_batch.runner.salvage import salvage
from rdu_batch.runner.session_host import SessionHost
from rdu_batch.storage.options_in_force import use_storage_options
from rdu_batch.storage.output_store import open_output


@dataclass(frozen=True)
class Loss:
    """A session process is gone, with the task it had."""

    cause: str
    #: Ordinal of the row that was in progress, where it is to be suspected.
    row: int | None
    timed_out: bool
    #: The rows of the lease that are durable all the same.
    done: LeaseDone | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back."""
        return {**asdict(self), "done": None if self.done is None else to_wire(self.done)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Loss:
        """Read back what ``to_json`` wrote. Raises ValueError for another version's."""
        done = None if document["done"] is None else from_wire(document["done"])
        if done is not None and not isinstance(done, LeaseDone):
            raise ValueError(f"a loss keeps rows of a lease, found {done!r}")
        return cls(document["cause"], document["row"], document["timed_out"], done)


class SessionKeeper:
    """Owns the host of one worker's session process, and survives that process."""

    def __init__(self, context: JobContext, worker_id: int) -> None:
        """Start the session process; ``wait_ready`` tells when its session is open."""
        output = context.spec.output
        use_storage_options(context.spec)
        self._context = context
        self._worker_id = worker_id
        self._store = open_output(output.url, single_writer=output.single_writer)
        outlive_the_session()
        self._host = SessionHost(context)

    @property
    def session_pid(self) -> int:
        """Process id of the session process."""
        return self._host.pid

    def wait_ready(self) -> None:
        """Wait until the session is open. Raises as ``SessionHost.wait_ready`` does."""
        try:
            self._host.wait_ready(self._context.spec.limits.start_timeout_s)
        except SessionBroken:
            self._write_forensics(None, self._host.death)
            raise

    def run(self, task: Task) -> Answer | Loss:
        """Run one task in the session process; a loss is the end of this worker.

        Raises:
            OutputOwned: a later epoch exists; nothing was stored. Ends the job.
            StoreError: a solo try could not be noted. Ends the job.
            RduBatchError: an error that ends the job; of the class that the session raised.
        """
        if isinstance(task, Lease) and is_solo_try(task):
            begin_attempt(self._store, task, self._context.epoch)
        try:
            return self._host.run(task)
        except SessionBroken as error:
            done = None
            if isinstance(task, Lease):
                if is_solo_try(task) and error.row is not None:
                    epoch = self._context.epoch
                    note_strike(self._store, task, epoch, timed_out=error.timed_out)
                done = self._salvage(task)
            self._write_forensics(task, self._host.death)
            return Loss(str(error), error.row, error.timed_out, done)

    def close(self) -> None:
        """End the session process and remove its folder."""
        self._host.close()

    def _salvage(self, lease: Lease) -> LeaseDone | None:
        """The rows that the session had finished, durable now; None if there are none."""
        death = self._host.death
        row = death.row.ordinal if death is not None and death.row is not None else None
        epoch = self._context.epoch
        # Rows that cannot be kept run again: a store that fails ends the job there, if it must.
        with suppress(StoreError):
            check_epoch(self._store, epoch, self._context.token)
            spool = self._host.spool_of(lease)
            end_row, totals = salvage(self._store, lease, epoch, spool, row)
            if totals.rows:
                span = lease.first_row, end_row
                spent = self._host.spent
                return LeaseDone(lease.lease_id, lease.shard, *span, totals=totals, spent=spent)
        return None

    def _write_forensics(self, task: Task | None, death: Death | None) -> None:
        if death is not None:
            scene = Scene(self._context.epoch, self._worker_id, task)
            write_forensics(self._store, scene, death)
