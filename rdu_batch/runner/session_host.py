"""The watching side of a session process: starts it, gives it leases, tells how it died.

Promises: a call returns when the child answers, dies, or one row takes longer than the limit (the
child is killed then); the child never outlives this host. Does not: decide what a death means.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

from rdu_batch import errors
from rdu_batch.errors import RduBatchError, RowError, SessionBroken, SpecError
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import Answer, LeaseDone, SealDone, Task, from_wire, to_wire
from rdu_batch.runner.session_folder import SessionFolder
from rdu_batch.runner.session_process import NO_ROW, ROW_FORMAT

#: How often the row in progress is looked at while a lease runs.
WATCH_INTERVAL_S = 0.5
#: How much of the end of the child's standard error goes into an error message.
STDERR_TAIL_BYTES = 2000
#: Variables that fix the number of threads; set before the child imports anything.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class SessionHost:
    """Owns one session process from start to end."""

    def __init__(self, context: JobContext) -> None:
        """Start the child; ``wait_ready`` tells when its session is open."""
        self._row_timeout_s = context.spec.limits.row_timeout_s
        self._folder = SessionFolder()
        folder = self._folder.path
        context_file, row_file = folder / "context.json", folder / "row"
        context_file.write_text(context.to_json())
        row_file.write_bytes(ROW_FORMAT.pack(NO_ROW))
        with row_file.open("r+b") as file:
            self._row_memory = mmap.mmap(file.fileno(), ROW_FORMAT.size)
        self._stderr_path = folder / "stderr"
        threads = dict.fromkeys(THREAD_VARIABLES, str(context.spec.session.threads))
        # What a killed session leaves behind (unpacked graphs, spools) goes with its folder.
        environment = {**os.environ, **threads, "TMPDIR": str(folder)}
        module = "rdu_batch.runner.session_process"
        files = [str(context_file), str(row_file), str(os.getpid())]
        with self._stderr_path.open("wb") as stderr:
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
            SessionBroken: the child ended on the way, one row exceeded the row limit, or the
                session failed; with the row in progress.
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
        """End the child, at once, and wait for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._row_memory.close()
        self._folder.remove()

    def _row(self) -> int | None:
        (row,) = ROW_FORMAT.unpack(self._row_memory[:])
        return None if row == NO_ROW else int(row)

    def _read_message(self, deadline_s: float | None) -> dict[str, Any]:
        """The child's next line, watching it and the row in progress meanwhile."""
        row, row_since_s = self._row(), time.monotonic()
        while b"\n" not in self._unread:
            if not self._read_some():
                now_s = time.monotonic()
                if self._row() != row:
                    row, row_since_s = self._row(), now_s
                if row is not None and now_s - row_since_s > self._row_timeout_s:
                    why = f"row took longer than {self._row_timeout_s:g} s"
                    raise self._killed(why, row, timed_out=True)
                if deadline_s is not None and now_s > deadline_s:
                    raise self._killed("no session was ready in limits.start_timeout_s", None)
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise error_of(message["error"])
        return message

    def _read_some(self) -> bool:
        """Read what is there; False if nothing came within the watch interval."""
        stdout = self._process.stdout
        if stdout is None:
            raise ValueError("the session process was started without standard output")
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(WATCH_INTERVAL_S):
                return False
        piece = os.read(stdout.fileno(), 1 << 16)
        if not piece:
            raise self._died()
        self._unread += piece
        return True

    def _died(self) -> SessionBroken:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        message = f"the session process ended with {how}{self._last_words()}"
        return SessionBroken(message, self._row())

    def _killed(self, why: str, row: int | None, *, timed_out: bool = False) -> SessionBroken:
        self._process.kill()
        self._process.wait()
        message = f"the session process was killed: {why}{self._last_words()}"
        return SessionBroken(message, row, timed_out=timed_out)

    def _last_words(self) -> str:
        with self._stderr_path.open("rb") as stderr:
            stderr.seek(max(0, self._stderr_path.stat().st_size - STDERR_TAIL_BYTES))
            tail = stderr.read().decode("utf-8", "replace")
        return f"; its last words:\n{tail.strip()}" if tail.strip() else " and said nothing"


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
