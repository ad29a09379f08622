"""A process of its own for a session: ``python session_process.py KIND ARTIFACT THREADS``.

Serves one session behind pickled calls on standard input, for kinds of which a process may open
only one. A call is a method's name with its arguments. "open" tries to open another session,
"again" gives what the last call but one gave, as it is by now, and "traffic" how many runs the
stand-in has seen, and how many bytes of outputs it gave to the host.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
from typing import Any


def main(kind: str, url: str, threads: str) -> None:
    """Serve until the end of input."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What libraries print must not come between the answers.

    def answer(work: Any) -> None:
        try:
            result = (None, work())
        except Exception as error:  # noqa: BLE001 - raised again on the other side
            result = (type(error).__name__, str(error))
        pickle.dump(result, answers)
        answers.flush()

    from rdu_batch.sessions.artifact_store import fetch_artifact
    from rdu_batch.sessions.registry import open_session

    opened: list[Any] = []

    def open_it() -> Any:
        opened.append(open_session(kind, fetch_artifact(url), threads=int(threads)))
        return opened[-1].info

    results: list[Any] = []

    def call(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        results.append(getattr(opened[0], name)(*arguments, **keywords))
        return results[-1]

    own: dict[str, Any] = {"open": open_it, "again": lambda: results[-2], "traffic": traffic}
    answer(open_it)
    while True:
        try:
            name, arguments, keywords = pickle.load(sys.stdin.buffer)  # noqa: S301 - our own
        except EOFError:
            break
        answer(own.get(name) or functools.partial(call, name, arguments, keywords))


def traffic() -> tuple[int, int]:
    """Runs, and bytes to the host."""
    from sambaflow.stand_in import TRAFFIC

    return TRAFFIC.num_runs, TRAFFIC.bytes_to_host


if __name__ == "__main__":
    main(*sys.argv[1:])
