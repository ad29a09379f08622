"""Live progress on standard error: a bar on a terminal, plain lines everywhere else.

Progress only shows; nothing reads it back. ``Silent`` is for callers that want no output.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live

from rdu_batch.report.terminal_bar import bar_line, worker_table
from rdu_batch.report.wording import clock, counted

#: Least time between two plain lines about the rows.
PLAIN_INTERVAL_S = 30.0
#: Workers that have a line on a terminal.
MAX_WORKER_LINES = 16


@dataclass(frozen=True)
class WorkerNow:
    """What a worker does at a moment, and did until then."""

    worker_id: int
    #: In a few words.
    doing: str
    #: For how long it has done that.
    for_s: float
    rows: int
    generated_tokens: int


@dataclass(frozen=True)
class Snapshot:
    """Where a job stands; counts are the job's, rates this run's."""

    elapsed_s: float
    rows: int
    rows_done: int
    rows_done_before: int
    dead: int
    generated_tokens: int
    shards: int
    shards_committed: int
    workers: int
    #: Seconds since the first session was open; what rates are taken over.
    working_s: float
    #: The first ``MAX_WORKER_LINES`` workers that live, those whose session is not open yet too.
    worker_lines: tuple[WorkerNow, ...] = ()

    @property
    def is_done(self) -> bool:
        """Every shard is committed."""
        return self.shards_committed == self.shards

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens a second since the first session was open; 0 before that."""
        return self.generated_tokens / self.working_s if self.working_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at this run's rate; None while a first lease a worker is all there is."""
        done_now = self.rows_done - self.rows_done_before
        if done_now <= 2 * self.workers:
            return None
        return (self.rows - self.rows_done) * self.working_s / done_now


class Progress(Protocol):
    """Where a run says what it is doing."""

    def phase(self, text: str) -> None:
        """A new phase began, in a few words."""

    def update(self, snapshot: Snapshot) -> None:
        """The numbers changed."""

    def close(self) -> None:
        """No more follows."""


class Silent:
    """Shows nothing."""

    def phase(self, text: str) -> None:
        """Ignore the phase."""

    def update(self, snapshot: Snapshot) -> None:
        """Ignore the numbers."""

    def close(self) -> None:
        """Nothing to close."""


class PlainLines:
    """Lines for logs: one a phase, then one about the rows every ``PLAIN_INTERVAL_S``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_s = 0.0

    def phase(self, text: str) -> None:
        """Write the phase."""
        print(f"rdu-batch: {text}", file=self._stream, flush=True)

    def update(self, snapshot: Snapshot) -> None:
        """Write the numbers, if it is time or the last row is done."""
        if snapshot.elapsed_s < self._next_s and not snapshot.is_done:
            return
        self._next_s = snapshot.elapsed_s + PLAIN_INTERVAL_S
        text = (
            f"{snapshot.rows_done:,}/{snapshot.rows:,} rows, "
            f"{snapshot.shards_committed:,}/{snapshot.shards:,} shards, {_rates(snapshot)}"
        )
        print(f"rdu-batch: {clock(snapshot.elapsed_s)} {text}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is held open."""


class TerminalBar:
    """One bar and a line a worker that are redrawn in place, the phases above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: Snapshot | None = None
        self._told_s = 0.0
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=10)

    def phase(self, text: str) -> None:
        """Write the phase above the bar."""
        self._console.print(f"rdu-batch: {text}", markup=False)

    def update(self, snapshot: Snapshot) -> None:
        """Redraw the bar, and what the workers do until the last row is done."""
        self._told, self._told_s = snapshot, time.monotonic()
        self._live.start()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._live.stop()

    def _render(self) -> RenderableType:
        told = self._told
        if told is None:
            return ""
        # The clock goes on while a long row says nothing.
        since_s = 0.0 if told.is_done else time.monotonic() - self._told_s
        line = bar_line(told, told.elapsed_s + since_s, self._console.width)
        if told.is_done or not told.worker_lines:
            return line
        return Group(line, worker_table(told))


class _Lenient:
    """A stream whose failures are nobody's business: what cannot be shown is not shown."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        with suppress(OSError, ValueError):  # ValueError: it was closed meanwhile
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal; what is closed is none."""
        with suppress(OSError, ValueError):
            return self._stream.isatty()
        return False


def open_progress(stream: TextIO | None = None) -> Progress:
    """A bar if the stream (standard error unless given) can redraw one, else plain lines.

    A run never ends because its progress cannot be shown.
    """
    found: TextIO | None = stream or sys.stderr
    if found is None:  # a daemon's, or that of a program without a terminal
        return Silent()
    lenient = cast("TextIO", _Lenient(found))
    console = Console(file=lenient, highlight=False)
    # Asked itself, too: variables such as FORCE_COLOR make rich take any file for a terminal.
    can_redraw = lenient.isatty() and console.is_terminal and not console.is_dumb_terminal
    return TerminalBar(console) if can_redraw else PlainLines(lenient)


def _rates(snapshot: Snapshot) -> str:
    parts = [f"{snapshot.tokens_per_s:,.1f} tokens/s", counted(snapshot.workers, "worker")]
    if snapshot.dead:
        parts.append(f"{snapshot.dead:,} dead")
    if snapshot.eta_s is not None and snapshot.rows_done < snapshot.rows:
        parts.append(f"{clock(snapshot.eta_s)} to go")
    return ", ".join(parts)
