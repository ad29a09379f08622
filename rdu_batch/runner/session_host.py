"""The watching side of a session process: starts it, gives it tasks, tells how it died.

Promises: a call returns when the child answers, dies, or goes beyond a limit (it is killed then):
one row's time, its own memory, the time of its start; the child never outlives this host.
Does not: decide what a death means, or store anything (see ``session_keeper.py``).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rdu_batch import errors
from rdu_batch.errors import RduBatchError, RowError, SessionBroken, SpecError
from rdu_batch.runner.forensics import Death
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import Answer, Lease, LeaseDone, SealDone, Task, from_wire, to_wire
from rdu_batch.runner.process_memory import read_memory
from rdu_batch.runner.row_memory import RowMark, RowMemory
from rdu_batch.runner.session_ending import end_process
from rdu_batch.runner.session_folder import SessionFolder, spool_path
from rdu_batch.runner.time_spent import TimeSpent

#: How often the row in progress is looked at while a task runs.
WATCH_INTERVAL_S = 0.5
#: How often, where memory is limited: a process may fill some gigabytes a second.
MEMORY_INTERVAL_S = 0.05
#: How much of the end of the child's standard error goes into an error message.
STDERR_TAIL_BYTES = 2000
#: How much of it is kept of a death.
STDERR_KEPT_BYTES = 8 << 10
#: Variables that fix the number of threads; set before the child imports anything.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class SessionHost:
    """Owns one session process from start to end."""

    def __init__(self, context: JobContext) -> None:
        """Start the child; ``wait_ready`` tells when its session is open."""
        limits = context.spec.limits
        self._row_timeout_s = limits.row_timeout_s
        self._memory_limit_bytes = limits.session_memory_limit_bytes
        is_limited = self._memory_limit_bytes is not None
        self._interval_s = MEMORY_INTERVAL_S if is_limited else WATCH_INTERVAL_S
        #: What is known of the child's end; None as long as it lives.
        self.death: Death | None = None
        self._own_bytes: int | None = None
        self._peak_bytes: int | None = None
        # The kernel begins a child's own mark of its peak with that of the process it comes from.
        self._inherited_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._folder = SessionFolder()
        self._folder.context_file.write_text(context.to_json())
        self._row_memory = RowMemory.create(self._folder.row_file)
        threads = dict.fromkeys(THREAD_VARIABLES, str(context.spec.session.threads))
        # What a killed session leaves behind (unpacked graphs, spools) goes with its folder.
        environment = {**os.environ, **threads, "TMPDIR": str(self._folder.path)}
        module = "rdu_batch.runner.session_process"
        files = [str(self._folder.context_file), str(self._folder.row_file), str(os.getpid())]
        with self._folder.stderr_file.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *files],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
            )
        self._unread = b""

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def spool_of(self, lease: Lease) -> Path:
        """Where the child writes the outcomes of a lease, one by one; there until ``close``."""
        return spool_path(self._folder.path, lease.lease_id)

    @property
    def spent(self) -> TimeSpent:
        """What the task in progress had taken when its last finished row ended."""
        return self._row_memory.spent()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the child's session is open.

        Raises:
            SessionBroken: the child died, failed, or took longer than ``timeout_s``.
            RduBatchError: the child met an error that ends the job; of the child's own class.
        """
        self._read_message(deadline_s=time.monotonic() + timeout_s)

    def run(self, task: Task) -> Answer:
        """Run one task in the child and wait for its answer.

        Raises:
            SessionBroken: the child ended on the way, went beyond a limit, or the session failed;
                with the row in progress. The child is gone, and ``death`` says how.
            RduBatchError: an error that ends the job; of the class that the child raised.
        """
        request = json.dumps(to_wire(task)).encode() + b"\n"
        stdin = self._process.stdin
        if stdin is None:
            raise ValueError("the session process was started without standard input")
        # A dead child is found by reading its answer, where its last words are reported.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(request)
            stdin.flush()
        answer = from_wire(self._read_message(deadline_s=None)["answer"])
        if not isinstance(answer, LeaseDone | SealDone):
            raise SessionBroken(f"the session process answered {answer!r}")
        return answer

    def close(self) -> None:
        """End the child, which may give its device back first, and wait for it."""
        self._end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._row_memory.close()
        self._folder.remove()

    def _read_message(self, deadline_s: float | None) -> dict[str, Any]:
        """The child's next line, watching it and the row in progress meanwhile."""
        while b"\n" not in self._unread:
            if not self._read_some():
                self._check_limits(deadline_s)
        # It waits for its next task now: what that one's sudden death would leave unknown.
        self._look_at_memory()
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            error = error_of(message["error"])
            if isinstance(error, SessionBroken):
                self._end()
                self._note_death("an error of its session", error=str(error))
            raise error
        return message

    def _read_some(self) -> bool:
        """Read what is there; False if nothing came within the watch interval."""
        stdout = self._process.stdout
        if stdout is None:
            raise ValueError("the session process was started without standard output")
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(self._interval_s):
                return False
        piece = os.read(stdout.fileno(), 1 << 16)
        if not piece:
            self._end()
            raise self._died()
        self._unread += piece
        return True

    # -- limits

    def _check_limits(self, deadline_s: float | None) -> None:
        """Kill the child if it is beyond a limit.

        Raises:
            SessionBroken: it was.
        """
        self._look_at_memory()
        own_bytes, most_bytes = self._own_bytes, self._memory_limit_bytes
        if own_bytes is not None and most_bytes is not None and own_bytes > most_bytes:
            raise self._killed(
                f"it took {own_bytes:,} bytes of memory for itself, "
                f"limits.session_memory_bytes allows {most_bytes:,}"
            )
        row = self._late_row()
        # Read once more: what the child writes at the same moment may be read as half of each row.
        if row is not None and self._late_row() == row:
            raise self._killed(f"row took longer than {self._row_timeout_s:g} s", late=row)
        if deadline_s is not None and time.monotonic() > deadline_s:
            raise self._killed("no session was ready in limits.start_timeout_s")

    def _late_row(self) -> RowMark | None:
        row = self._row_memory.read()
        is_late = row is not None and time.monotonic() - row.started_s > self._row_timeout_s
        return row if is_late else None

    def _look_at_memory(self) -> None:
        memory = read_memory(self.pid)
        if memory is not None:
            self._own_bytes = max(memory.own_bytes, self._own_bytes or 0)
            self._peak_bytes = max(memory.peak_bytes, self._peak_bytes or 0)

    # -- the end

    def _end(self) -> bool:
        """End the child, whose status stays as it is if it ended already; take what was counted.

        Not by ``Popen.kill``, which may take the status and leave us without the count. Gives back
        whether the child was asked, and so chose its status.
        """
        if self._process.returncode is not None:
            return False
        is_asked = end_process(self.pid)
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        peak_bytes = usage.ru_maxrss * 1024
        if peak_bytes > self._inherited_bytes:
            self._peak_bytes = max(peak_bytes, self._peak_bytes or 0)
        return is_asked

    def _died(self) -> SessionBroken:
        """What to say of a child that ended by itself."""
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        row = self._note_death(how)
        message = f"the session process ended with {how}{self._last_words()}"
        return SessionBroken(message, row.ordinal if row else None)

    def _killed(self, why: str, *, late: RowMark | None = None) -> SessionBroken:
        """Kill the child and say why; ``late`` is the row that took too long."""
        is_asked = self._end()
        if not is_asked and self._process.returncode != -signal.SIGKILL:
            return self._died()  # It was quicker.
        row = self._note_death(f"its watcher: {why}")
        message = f"the session process was killed: {why}{self._last_words()}"
        if late is not None and row != late:
            # The row ended at the last moment; the one after it, if any, did nothing.
            return SessionBroken(message)
        return SessionBroken(message, row.ordinal if row else None, timed_out=late is not None)

    def _note_death(self, how: str, *, error: str | None = None) -> RowMark | None:
        """Keep what is known of the child's end; gives back the row in progress."""
        row, code = self._row_memory.read(), self._process.returncode
        # What this side killed for an answer that it gave has no status of its own.
        is_own_end = error is None
        self.death = Death(
            ended_by=how,
            signal=signal.Signals(-code).name if is_own_end and code < 0 else None,
            exit_code=code if is_own_end and code >= 0 else None,
            row=row,
            row_s=time.monotonic() - row.started_s if row is not None else None,
            pid=self.pid,
            peak_memory_bytes=self._peak_bytes,
            own_memory_bytes=self._own_bytes,
            error=error,
            stderr=self._stderr_tail(STDERR_KEPT_BYTES),
        )
        return row

    def _last_words(self) -> str:
        tail = self._stderr_tail(STDERR_TAIL_BYTES).strip()
        return f"; its last words:\n{tail}" if tail else " and said nothing"

    def _stderr_tail(self, most_bytes: int) -> str:
        with self._folder.stderr_file.open("rb") as stderr:
            stderr.seek(max(0, os.fstat(stderr.fileno()).st_size - most_bytes))
            return stderr.read(most_bytes).decode("utf-8", "replace")


def error_of(document: dict[str, Any]) -> RduBatchError:
    """The error of another process: of its own class if that ends the job, else SessionBroken."""
    found = getattr(errors, str(document["kind"]), None)
    kind = found if isinstance(found, type) and issubclass(found, RduBatchError) else None
    message = str(document["message"])
    if kind is SpecError:
        return SpecError([message])
    if kind is None or kind in (SessionBroken, RowError):
        # An error that nobody foresaw says more with its traceback.
        text = message if kind is SessionBroken else str(document["traceback"]).strip()
        timed_out = bool(document.get("timed_out"))
        return SessionBroken(text, document.get("row"), timed_out=timed_out)
    return kind(message)
