"""What people see: plain lines in logs, a bar on a terminal, numbers that add up."""

import io
import re

from rdu_batch.report.progress import (
    PlainLines,
    Snapshot,
    TerminalBar,
    WorkerNow,
    open_progress,
)
from rdu_batch.report.summary import Summary
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


def test_a_terminal_gets_a_bar_and_a_file_gets_lines():
    """Chosen by the stream."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

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

    class Terminal(io.StringIO):
        def isatty(self):
            return True

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
