"""The child process that holds a worker's session: ``python -m rdu_batch.runner.session_process``.

A session's native code can crash, hang or hold the interpreter, so it never shares a process with
what watches it. The child reads one JSON request a line on standard input and answers one JSON
line on the file descriptor that was standard output; anything else that is printed goes to
standard error. The row in progress is written to a small shared file, its outcome to a spool beside
that file: both outlive this process, which is the first to be killed when memory runs out.

Requests: a task of ``leases.py``. Answers: ``{"ready": ...}`` once, then ``{"answer": ...}`` or
``{"error": {...}}`` for each request. End of input ends the child.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar

from rdu_batch.errors import SessionBroken

T = TypeVar("T")


def main(argv: list[str]) -> int:
    """Serve leases until the end of input. ``argv``: context file, row file, parent's pid."""
    from rdu_batch.runner.process_memory import be_killed_first
    from rdu_batch.runner.session_ending import die_with_parent

    context_file, row_file, parent_pid = argv
    die_with_parent(int(parent_pid))
    be_killed_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = _take_over_stdout()
    return _serve(Path(context_file).read_text(), Path(row_file), int(parent_pid), answers)


def _serve(context_json: str, row_file: Path, parent_pid: int, answers: TextIO) -> int:
    from rdu_batch.runner.job_context import JobContext
    from rdu_batch.runner.lease_run import LeaseRunner
    from rdu_batch.runner.leases import Lease, SealTask, from_wire, to_wire
    from rdu_batch.runner.row_memory import RowMemory
    from rdu_batch.runner.session_ending import give_device_back_with_parent

    row_memory = RowMemory(row_file)

    def open_runner() -> LeaseRunner:
        return LeaseRunner(JobContext.from_json(context_json), row_file.parent)

    runner = _answer(answers, "ready", open_runner, lambda _runner: {"pid": os.getpid()})
    if runner is None:
        return 1
    give_device_back_with_parent(parent_pid)
    with runner:
        for request in sys.stdin:
            task = from_wire(json.loads(request))
            if not isinstance(task, Lease | SealTask):
                raise TypeError(f"not a task: {request!r}")
            run = functools.partial(runner.run, task, watch=row_memory)
            done = _answer(answers, "answer", run, to_wire)
            if done is None:
                return 1
    return 0


def error_document(error: Exception, text: str) -> dict[str, Any]:
    """An error as JSON, with what ``session_host.error_of`` needs to make it again elsewhere."""
    document = {"kind": type(error).__name__, "message": str(error), "traceback": text}
    if isinstance(error, SessionBroken):
        return {**document, "row": error.row, "timed_out": error.timed_out}
    return document


def _answer(
    answers: TextIO, name: str, work: Callable[[], T], to_json: Callable[[T], Any]
) -> T | None:
    """Do some work and answer with its result, or with its error; None after an error.

    Every error is caught here because this process has nobody above it: the watching process
    decides by the error's class whether the worker or the job ends.
    """
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - reported whole to the watching process
        text = traceback.format_exc()
        sys.stderr.write(text)
        print(json.dumps({"error": error_document(error, text)}), file=answers, flush=True)
        return None
    print(json.dumps({name: to_json(result)}), file=answers, flush=True)
    return result


def _take_over_stdout() -> TextIO:
    """Keep the answer channel to ourselves: what libraries print goes to standard error."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
