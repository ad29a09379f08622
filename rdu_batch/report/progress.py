"""Live progress on standard error: a bar on a terminal, plain lines everywhere else.

Progress only shows; nothing reads it back. ``Silent`` is for callers that want no output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichBar
from rich.table import Table

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


class _BarAndWorkers(RichBar):
    """Rich's bar, with a line for each worker below it."""

    told: Snapshot | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.told is not None and self.told.worker_lines and not self.told.is_done:
            yield _worker_table(self.told)


class TerminalBar:
    """One bar and a line a worker that are redrawn in place, the phases above them."""

    def __init__(self, stream: TextIO) -> None:
        self._bar = _BarAndWorkers(
            TextColumn("[bold]rows"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rates]}"),
            console=Console(file=stream, highlight=False),
        )
        self._task: TaskID | None = None

    def phase(self, text: str) -> None:
        """Write the phase above the bar."""
        self._bar.console.print(f"rdu-batch: {text}", markup=False)

    def update(self, snapshot: Snapshot) -> None:
        """Redraw the bar, and what the workers do until the last row is done."""
        self._bar.told = snapshot
        rates = _rates(snapshot)
        if self._task is None:
            self._task = self._bar.add_task("rows", total=snapshot.rows, rates=rates)
            self._bar.start()
        self._bar.update(self._task, completed=snapshot.rows_done, rates=rates)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


def open_progress(stream: TextIO | None = None) -> Progress:
    """A bar if the stream (standard error unless given) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return TerminalBar(stream) if stream.isatty() else PlainLines(stream)


def _rates(snapshot: Snapshot) -> str:
    parts = [f"{snapshot.tokens_per_s:,.1f} tokens/s", counted(snapshot.workers, "worker")]
    if snapshot.dead:
        parts.append(f"{snapshot.dead:,} dead")
    if snapshot.eta_s is not None and snapshot.rows_done < snapshot.rows:
        parts.append(f"{clock(snapshot.eta_s)} to go")
    return ", ".join(parts)


def _worker_table(snapshot: Snapshot) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for style, justify in (("dim", "left"), ("", "left"), ("dim", "right")):
        table.add_column(style=style, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for one in snapshot.worker_lines:
        did = (counted(one.rows, "row"), f"{one.generated_tokens:,} tokens")
        table.add_row(f"worker {one.worker_id}", one.doing, clock(one.for_s), *did)
    num_more = snapshot.workers - len(snapshot.worker_lines)
    if num_more > 0:
        table.add_row(f"and {num_more:,} more")
    return table
