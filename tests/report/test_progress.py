"""What people see: plain lines in logs, a bar on a terminal, numbers that add up."""

import io
import re
import sys

import pytest
from rich.console import Console

from rdu_batch.report.progress import (
    PlainLines,
    Silent,
    Snapshot,
    TerminalBar,
    WorkerNow,
    open_progress,
)
from rdu_batch.report.summary import Summary
from rdu_batch.report.terminal_bar import bar_line
from rdu_batch.report.wording import clock, counted


def snapshot(**changes):
    values = {
        "elapsed_s": 12.0,
        "rows": 100,
        "rows_done": 30,
        "rows_done_before": 10,
        "dead": 0,
        "generated_tokens": 400,
        "shards": 4,
        "shards_committed": 1,
        "workers": 2,
        "working_s": 10.0,
    }
    return Snapshot(**{**values, **changes})


def test_the_rate_and_the_time_to_go_are_this_runs():
    """20 rows in 10 s of work, 70 to go: rows of an earlier run and the start do not count."""
    assert snapshot().tokens_per_s == 40.0
    assert snapshot().eta_s == 35.0


def test_no_time_to_go_is_guessed_from_the_first_leases():
    """The first lease of each worker is one row, which says nothing yet."""
    assert snapshot(rows_done=14).eta_s is None
    assert snapshot(working_s=0.0).tokens_per_s == 0.0


def test_plain_lines_come_at_intervals_and_at_the_end():
    """Not at every look; the last line always."""
    stream = io.StringIO()
    lines = PlainLines(stream)
    for elapsed_s in (0.0, 0.2, 0.4, 29.9, 30.1, 30.3):
        lines.update(snapshot(elapsed_s=elapsed_s))
    lines.update(snapshot(elapsed_s=30.5, rows_done=100))
    lines.update(snapshot(elapsed_s=30.7, rows_done=100, shards_committed=4))
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["0:00", "0:30", "0:30"]
    assert "100/100 rows, 4/4 shards" in stream.getvalue().splitlines()[-1]


class Terminal(io.StringIO):
    """One that is not there."""

    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(monkeypatch):
    """Chosen by the stream."""
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    bar = open_progress(terminal)
    assert isinstance(bar, TerminalBar)
    bar.phase("planning [bold]x[/bold]")
    bar.update(snapshot())
    bar.update(snapshot(rows_done=100, shards_committed=4))
    bar.close()
    assert "[bold]x[/bold]" in terminal.getvalue()
    assert "100/100" in terminal.getvalue()
    assert isinstance(open_progress(io.StringIO()), PlainLines)


def test_a_terminal_has_a_line_for_each_worker_until_the_last_row(monkeypatch):
    """With what it does and for how long; the rest of many are counted."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    lines = (
        WorkerNow(0, "shard 3, 35 rows", 61.0, 1200, 45000),
        WorkerNow(2, "opens its session", 4.0, 0, 0),
    )
    terminal = Terminal()
    bar = open_progress(terminal)
    bar.update(snapshot(workers=9, worker_lines=lines))
    bar.close()
    shown = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).split())
    assert "worker 0 shard 3, 35 rows 1:01 1,200 rows 45,000 tokens" in shown
    assert "worker 2 opens its session 0:04 0 rows 0 tokens" in shown
    assert "and 7 more" in shown
    done = Terminal()
    bar = open_progress(done)
    bar.update(snapshot(rows_done=100, shards_committed=4, worker_lines=lines))
    bar.close()
    assert "opens its session" not in done.getvalue()


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_terminal_that_cannot_redraw_gets_lines(monkeypatch, kind):
    """Such as that of an editor, where a bar would show nothing until the end."""
    monkeypatch.setenv("TERM", kind)
    terminal = Terminal()
    progress = open_progress(terminal)
    progress.update(snapshot())
    assert "30/100 rows" in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue()


def test_colours_that_are_forced_make_a_log_no_terminal(monkeypatch):
    """CI systems set this variable."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(open_progress(io.StringIO()), PlainLines)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_that_cannot_be_shown_ends_nothing(monkeypatch, is_terminal):
    """A full disk, a reader that left, a stream that was closed meanwhile."""
    monkeypatch.setenv("TERM", "xterm")

    class Broken(io.StringIO):
        def isatty(self):
            return is_terminal

        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise OSError(28, "No space left on device")

    closed = Terminal() if is_terminal else io.StringIO()
    for stream in (Broken(), closed):
        progress = open_progress(stream)
        closed.close()
        progress.phase("planning")
        progress.update(snapshot())
        progress.close()


def test_where_there_is_no_standard_error_nothing_is_shown(monkeypatch):
    """As in a daemon."""
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(open_progress(), Silent)


def line_at(width, **changes):
    """The bar as a terminal of this width shows it, without its colours."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    large = {"rows": 1_000_000, "rows_done": 123_400, "generated_tokens": 57_143, "workers": 16}
    told = snapshot(**{**large, "rows_done_before": 0, "dead": 7, **changes})
    console.print(bar_line(told, 3725.0, width))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (120, ["rows", "1:02:05", "5,714.3 tokens/s", "1:11 to go", "7 dead", "16 workers"]),
        (100, ["rows", "1:02:05", "5,714.3 tokens/s", "1:11 to go", "7 dead", "16 workers"]),
        (80, ["rows", "1:02:05", "5,714.3 tokens/s", "1:11 to go", "7 dead"]),
        (60, ["rows", "1:02:05", "5,714.3 tokens/s"]),
        (40, ["rows", "1:02:05"]),
        (30, ["1:02:05"]),
        (20, []),
    ],
)
def test_how_much_is_done_is_never_cut(width, words):
    """The bar shrinks, then the rates lose their end, then the rest goes; in one line always."""
    (line,) = line_at(width).splitlines()
    assert len(line.rstrip()) <= width
    assert "  123,400/1,000,000" in f"  {line}"
    assert "\N{HORIZONTAL ELLIPSIS}" not in line
    found = [
        word
        for word in ("rows", "1:02:05", "5,714.3 tokens/s", "1:11 to go", "7 dead", "16 workers")
        if word in line
    ]
    assert found == words
    assert any(mark in line for mark in "\u2501\u2578") is ("rows" in words)


def test_a_number_that_no_line_has_room_for_is_folded():
    """Nothing of it is lost."""
    assert line_at(8).replace("\n", "").strip() == "123,400/1,000,000"


def test_numbers_in_words():
    """One file, two files; minutes and hours."""
    assert (counted(1, "file"), counted(2000, "file")) == ("1 file", "2,000 files")
    assert (clock(59.9), clock(61), clock(3725)) == ("0:59", "1:01", "1:02:05")


def test_the_summary_says_only_what_there_is_to_say():
    """Nothing about dead rows, lost workers or resumes that did not happen."""
    summary = Summary("job", "complete", 0, "/out", rows=2, predictions=2, shards=1, wall_s=1.0)
    text = summary.to_text()
    assert "2 = 2 predictions + 0 dead" in text
    assert not any(word in text for word in ("resumed", "lost", "ended by", "worker time"))
    troubled = Summary(
        *("job", "complete", 5, "/out"),
        dead=3,
        dead_reasons={"not_json": 1, "too_deep": 2},
        workers_lost=1,
        rows_resumed=4,
        worker_seconds={"total_s": 8.0, "session_start_s": 2.0, "decode_s": 6.0, "wasted_s": 0.01},
    )
    assert "worker time  8.0 s: decode 75 %, session start 25 %\n" in troubled.to_text()
    assert "too_deep 2, not_json 1" in troubled.to_text()
    assert "4 rows were done by an earlier run" in troubled.to_text()
