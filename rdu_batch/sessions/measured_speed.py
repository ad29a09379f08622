"""How fast an artifact's session is on the machine that compiled it: ``measured.json`` beside it.

Promises: the file is no part of the artifact's digest, and an artifact without one is whole; what
cannot be measured here is left out. Does not: replace ``rdu-batch bench``: it takes a second or so,
on a machine that may have other work.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rdu_batch.errors import ObjectMissing, RduBatchError, StoreError
from rdu_batch.job.speed import Interval, Speed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.door import Session

MEASURED_FILE: Final = "measured.json"
#: Kinds whose sessions run where they are compiled, any number in a process.
_MEASURED_KINDS: Final = ("inductor", "eager")
#: A job's sessions have one thread unless it says otherwise.
_THREADS: Final = 1
#: A prompt has at least so many tokens, or a chunk of the session's, and half its room at most.
_PROMPT_TOKENS: Final = 64
#: Most tokens of a row, and the time after which no further one is begun; two are always made.
_MOST_NEW_TOKENS: Final = 32
_DECODE_S: Final = 0.2
#: Rows are begun for so long, and are at least so many; the first of all only warms up.
_ROWS_S: Final = 0.4
_LEAST_ROWS: Final = 2


def read_speed(url: str) -> Speed | None:
    """What was measured of the artifact at ``url``; None where nothing was, or it cannot be read.

    Nothing depends on it, so no failure of it ends anything.
    """
    from rdu_batch.storage.store import open_store

    try:
        return Speed.from_bytes(open_store(url).read(MEASURED_FILE))
    except (ObjectMissing, StoreError):
        return None


def measure_speed(
    local: LocalArtifact, *, now_s: Callable[[], float] = time.monotonic
) -> Speed | None:
    """Open a session and run a few rows; None for an artifact that cannot run here and now.

    The process's number of threads is afterwards what it was before.
    """
    import torch

    from rdu_batch.sessions.registry import open_session

    artifact = local.artifact
    if artifact.kind not in _MEASURED_KINDS or not artifact.has_weights:
        return None
    threads = artifact.threads or _THREADS
    num_threads_before = torch.get_num_threads()
    try:
        started_s = now_s()
        session = open_session(artifact.kind, local, threads=threads)
        open_s = now_s() - started_s
        try:
            prefill, decode = _rates(session, now_s)
        finally:
            session.close()
    except RduBatchError:
        # Compiled for another machine, say: it is an artifact all the same.
        return None
    finally:
        torch.set_num_threads(num_threads_before)
    # The second opening of a process is quick; on a node that never had the files it is not.
    return Speed(prefill, decode, Interval(open_s, 3 * open_s), threads, _machine())


def _rates(session: Session, now_s: Callable[[], float]) -> tuple[Interval, Interval]:
    """Tokens a second of prefill and of decode: the slowest and the fastest row."""
    length, vocab_size = session.info.max_seq_length, session.info.vocab_size
    num_prompt = max(1, min(max(_PROMPT_TOKENS, session.info.prefill_chunk), length // 2))
    most_new = max(1, min(_MOST_NEW_TOKENS, length - num_prompt))
    prefills: list[float] = []
    decodes: list[float] = []
    latest_s = None
    while latest_s is None or len(prefills) <= _LEAST_ROWS or now_s() < latest_s:
        # Another first token for each row, so that nothing of the last one is kept.
        prompt = [(len(prefills) * 7 + index) % vocab_size for index in range(num_prompt)]
        at_s = now_s()
        step = session.prefill(prompt)
        prefilled_s = now_s()
        decoded_s, num_new = prefilled_s, 0
        while num_new < most_new and (num_new < 2 or decoded_s - prefilled_s < _DECODE_S):
            step = session.decode(step.token_id, num_prompt + num_new)
            num_new += 1
            decoded_s = now_s()
        prefills.append(num_prompt / max(prefilled_s - at_s, 1e-9))
        decodes.append(num_new / max(decoded_s - prefilled_s, 1e-9))
        latest_s = now_s() + _ROWS_S if latest_s is None else latest_s
    return _range(prefills[1:]), _range(decodes[1:])


def _range(values: list[float]) -> Interval:
    return Interval(min(values), max(values))


def _machine() -> str:
    """The processor in words."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
