"""Sessions in processes of their own: how one opens, and what several do side by side.

Promises: every process it starts has ended when it returns, whatever happened; a session's own
memory is what its process had more after decoding than before opening, in the same process.
Does not: measure anything in this process but the memory's speed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import rdu_batch
from rdu_batch.errors import SessionBroken
from rdu_batch.sessions.bench.rounds import Quartiles, total_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.sessions.bench.rates import MemoryReader
    from rdu_batch.sessions.bench.settings import BenchSettings

#: Fresh processes whose medians count.
_NUM_OPENS = 3
#: Processes are told a time this far ahead, so that all of them have heard it by then.
_LEAD_S = 0.05


@dataclass(frozen=True)
class Opening:
    """How long a session takes to open in a fresh process, in seconds; medians of a few."""

    import_s: float
    #: Checking every file's sha256, which each opening does.
    check_s: float
    #: Loading graphs and binding weights.
    load_s: float
    #: The first token of the first prompt after that.
    first_token_s: float

    @property
    def open_s(self) -> float:
        """From a folder on this node to a session, imports left out."""
        return self.check_s + self.load_s


@dataclass(frozen=True)
class SideBySide:
    """What some sessions did at once."""

    sessions: int
    threads: int
    #: All sessions together.
    tokens_per_s: Quartiles
    #: This process's own reading between the rounds, with the threads of all sessions together.
    read_bytes_per_s: float
    #: All sessions' reads of weights and cache, of that.
    roofline_fraction: Quartiles
    #: Private memory that a session added to its process; the most of any.
    private_bytes: int
    #: Bytes of the weights file in each session's memory that others have too; the least of any.
    shared_weights_bytes: int


class SessionProcess:
    """One process of ``one_session.py``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        #: What it said before anything was asked.
        self.hello = self.answer()

    def tell(self, line: str) -> None:
        """Send one line; ``answer`` waits for what it leads to."""
        if self._process.stdin is None:
            raise ValueError("a process without a standard input")
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.answer()

    def answer(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            SessionBroken: the process failed, or ended instead.
        """
        line = self._process.stdout.readline() if self._process.stdout else ""
        document: dict[str, Any] = json.loads(line) if line else {}
        if line and "error" not in document:
            return document
        said = document.get("error") or f"it ended (exit {self._process.wait()}) without an answer"
        raise SessionBroken(f"a session in a process of its own failed: {said}")

    def ask(self, line: str) -> dict[str, Any]:
        """Send one line and wait for its answer."""
        self.tell(line)
        return self.answer()


@contextmanager
def session_process(settings: BenchSettings) -> Iterator[SessionProcess]:
    """A process that has imported what a session needs; killed on the way out."""
    root = str(Path(rdu_batch.__file__).resolve().parent.parent)
    search_path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    numbers = (settings.threads, settings.prompt_tokens, settings.new_tokens)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rdu_batch.sessions.bench.one_session"),
            *(settings.artifact_url, *map(str, numbers)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search_path},
    )
    try:
        yield SessionProcess(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def time_opening(settings: BenchSettings) -> Opening:
    """Open a session in fresh processes, one after the other.

    Raises:
        SessionBroken: one failed.
    """
    found = []
    for _ in range(_NUM_OPENS):
        with session_process(settings) as process:
            found.append({"import_s": process.hello["import_s"], **process.ask("open")})
    median = {name: statistics.median(one[name] for one in found) for name in found[0]}
    return Opening(
        import_s=median["import_s"],
        check_s=median["check_s"],
        load_s=median["open_s"],
        first_token_s=median["first_token_s"],
    )


def run_side_by_side(
    settings: BenchSettings, reader: MemoryReader, bytes_per_token: float
) -> SideBySide:
    """Open ``settings.sessions`` sessions, and let them decode at the same time, round by round.

    Their rows begin before each round; only while all of them decode, tokens count.

    Raises:
        SessionBroken: one of them failed.
    """
    count = settings.sessions or 1
    # This process reads for all of them, with as many threads as run on this machine at once.
    torch.set_num_threads(min(count * settings.threads, len(os.sched_getaffinity(0))))
    totals, reads = [], []
    try:
        with ExitStack() as stack:
            running = [stack.enter_context(session_process(settings)) for _ in range(count)]
            for process in running:
                process.ask("open")
            for _ in range(max(1, settings.rounds // 2)):
                for process in running:
                    process.ask("ready")
                before = reader.before().best
                totals.append(total_rate(_decode_all(running)))
                reads.append((before + reader.after().best) / 2)
            memory = [process.ask("memory") for process in running]
            own_bytes = [
                now["private_bytes"] - process.hello["private_bytes"]
                for now, process in zip(memory, running, strict=True)
            ]
    finally:
        torch.set_num_threads(settings.threads)
    return SideBySide(
        sessions=count,
        threads=settings.threads,
        tokens_per_s=Quartiles.of(totals),
        read_bytes_per_s=statistics.median(reads),
        roofline_fraction=Quartiles.of(
            total * bytes_per_token / read for total, read in zip(totals, reads, strict=True)
        ),
        private_bytes=max(own_bytes),
        shared_weights_bytes=min(now["shared_weights_bytes"] for now in memory),
    )


def _decode_all(running: list[SessionProcess]) -> list[list[float]]:
    """One row of each, begun at the same time; the times of their tokens."""
    begin_s = time.monotonic() + _LEAD_S
    for process in running:
        process.tell(f"decode {begin_s}")
    return [process.answer()["stamps"] for process in running]
