"""The bar of a terminal, and a line a worker below it, in whatever width there is.

Promises: how many rows are done, and of how many, is never cut; where there is no room the bar
shrinks, then what is last of the rates goes, then the bar. Does not: know where numbers come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rdu_batch.report.wording import clock, counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rdu_batch.report.progress import Snapshot

_LABEL: Final = "rows"
#: Cells of the bar: with room enough, and where less would show nothing.
_BAR_WIDTH: Final = 30
_LEAST_BAR_WIDTH: Final = 6


def bar_line(snapshot: Snapshot, elapsed_s: float, width: int) -> RenderableType:
    """Where the job stands, in one line of so many cells.

    Args:
        snapshot: the numbers.
        elapsed_s: since the run's start, by now.
        width: of the terminal.
    """
    total = f"{snapshot.rows:,}"
    count = f"{snapshot.rows_done:>{len(total)},}/{total}"
    shown = f"{count} {clock(elapsed_s)}"
    if len(shown) > width:
        return Text(count, overflow="fold")  # not cut, if even that is too long
    room = width - len(shown) - len(f"{_LABEL}  ")
    if room < _LEAST_BAR_WIDTH:
        return Text(shown)
    rates = _that_fit(bar_rates(snapshot), room - _LEAST_BAR_WIDTH)
    bar_width = min(_BAR_WIDTH, room - len(rates))
    bar = ProgressBar(total=max(1, snapshot.rows), completed=snapshot.rows_done, width=bar_width)
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(no_wrap=True)
    line.add_column(width=bar_width)
    line.add_column(no_wrap=True)
    line.add_row(Text(_LABEL, style="bold"), bar, f"{shown}{rates}")
    return line


def bar_rates(snapshot: Snapshot) -> list[str]:
    """What is said behind the bar, what is kept longest first."""
    parts = [f"{snapshot.tokens_per_s:,.1f} tokens/s"]
    if snapshot.eta_s is not None and snapshot.rows_done < snapshot.rows:
        parts.append(f"{clock(snapshot.eta_s)} to go")
    if snapshot.dead:
        parts.append(f"{snapshot.dead:,} dead")
    parts.append(counted(snapshot.workers, "worker"))
    return parts


def _that_fit(parts: list[str], room: int) -> str:
    """The first of these texts, as many as there is room for; each with what parts it."""
    text = ""
    for index, part in enumerate(parts):
        longer = f"{text}{', ' if index else ' '}{part}"
        if len(longer) > room:
            break
        text = longer
    return text


def worker_table(snapshot: Snapshot) -> Table:
    """What each worker does, a line each; the rest of many are counted."""
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
