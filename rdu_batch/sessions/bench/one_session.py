"""A process of its own with one session: ``python -m rdu_batch.sessions.bench.one_session``.

Arguments: folder of an artifact, threads, prompt tokens, new tokens. Imports what a session needs,
says so, then does what each line of standard input says, and answers each with one JSON line on
what was standard output (anything else that is printed goes to standard error):

    open            check the artifact's files and open a session; the first token of a prompt
    ready           begin a row
    decode TIME     decode it from that time on (seconds of ``time.monotonic``, one clock for all
                    processes); the times of its tokens
    memory          private bytes; shared bytes of the weights file

The first answer, to no line, is the time imports took, and the private bytes before a session is
open. End of input ends the process, so it cannot outlive the one that started it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import RduBatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdu_batch.sessions.bench.settings import BenchSettings
    from rdu_batch.sessions.door import Session, Step


class OneSession:
    """Answers the lines; see the module."""

    def __init__(self, settings: BenchSettings) -> None:
        self._settings = settings
        self._session: Session | None = None
        self._ids: list[int] = []
        self._step: Step | None = None

    def answer(self, line: str) -> dict[str, Any]:
        """Do what one line says, and give back what to answer."""
        from rdu_batch.sessions.bench.memory_map import private_bytes, shared_bytes_of_file
        from rdu_batch.sessions.inductor.geometry import WEIGHTS_FILE

        words = line.split()
        match words:
            case ["open"]:
                return self._open()
            case ["ready"]:
                self._step = self._opened().prefill(self._ids)
                return {}
            case ["decode", begin_s]:
                return {"stamps": self._decode(float(begin_s))}
            case ["memory"]:
                return {
                    "private_bytes": private_bytes(),
                    "shared_weights_bytes": shared_bytes_of_file(WEIGHTS_FILE),
                }
        raise ValueError(f"not a line of this protocol: {line!r}")

    def _opened(self) -> Session:
        if self._session is None:
            raise ValueError("no session is open; the first line is `open`")
        return self._session

    def _open(self) -> dict[str, Any]:
        from rdu_batch.sessions.artifact_store import fetch_artifact
        from rdu_batch.sessions.bench.prefill import cold_prefill_s
        from rdu_batch.sessions.bench.settings import prompt_ids
        from rdu_batch.sessions.registry import open_session

        begin_s = time.perf_counter()
        local = fetch_artifact(self._settings.artifact_url)
        checked_s = time.perf_counter()
        session = open_session(local.artifact.kind, local, threads=self._settings.threads)
        opened_s = time.perf_counter()
        self._session = session
        self._ids = prompt_ids(self._settings.prompt_tokens, session.info.vocab_size)
        return {
            "check_s": checked_s - begin_s,
            "open_s": opened_s - checked_s,
            "first_token_s": cold_prefill_s(session, self._ids),
        }

    def _decode(self, begin_s: float) -> list[float]:
        """Times after each decode of a row; the first does not count and is left out."""
        session, step = self._opened(), self._step
        if step is None:
            raise ValueError("no row has begun; a line `ready` comes before")
        position, stamps = len(self._ids), []
        time.sleep(max(0.0, begin_s - time.monotonic()))
        for _ in range(self._settings.new_tokens - 1):
            step = session.decode(step.token_id, position)
            position += 1
            stamps.append(time.monotonic())
        self._step = None
        return stamps


def main(argv: Sequence[str]) -> int:
    """Serve lines until the end of input; 1 after an error of ours, which is the last answer."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    begin_s = time.perf_counter()
    import torch  # noqa: F401 - what its import takes is part of the first answer

    import rdu_batch.sessions.inductor.session  # noqa: F401 - the same
    from rdu_batch.sessions.bench.memory_map import private_bytes
    from rdu_batch.sessions.bench.settings import BenchSettings

    import_s = time.perf_counter() - begin_s
    url, *numbers = argv
    threads, prompt_tokens, new_tokens = map(int, numbers)
    server = OneSession(BenchSettings(url, threads, prompt_tokens, new_tokens))
    answers.write(json.dumps({"import_s": import_s, "private_bytes": private_bytes()}) + "\n")
    for line in sys.stdin:
        try:
            document = server.answer(line)
        except RduBatchError as error:
            answers.write(json.dumps({"error": str(error)}) + "\n")
            return error.exit_code
        answers.write(json.dumps(document) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
