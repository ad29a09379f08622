"""What every section of the report page is built of: escaped text, tables, moments in time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from html import escape
from itertools import zip_longest
from typing import Final

_MAX_SHOWN_CHARS: Final = 400


def text(value: object) -> str:
    """Any text, cut and escaped, so that nothing in it can be markup."""
    shown = str(value)
    if len(shown) > _MAX_SHOWN_CHARS:
        shown = shown[: _MAX_SHOWN_CHARS - 3] + "..."
    # A control character or half a surrogate pair is no character of HTML.
    return escape("".join(one if one.isprintable() else repr(one)[1:-1] for one in shown))


def section(title: str, content: str) -> str:
    """A section of the page; both are HTML already."""
    return f"<section><h2>{title}</h2>{content}</section>"


def table(heads: list[str], rows: list[list[str]], below: Sequence[str] = ()) -> str:
    """Cells are HTML already; the first column is text, the others are numbers.

    ``below`` has for each row what stands below it, over the whole width; empty for nothing.
    """

    def line(tag: str, cells: list[str]) -> str:
        kinds = ["", *[' class="n"'] * (len(cells) - 1)]
        told = (f"<{tag}{kind}>{one}</{tag}>" for kind, one in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(told)}</tr>"

    body = ""
    for row, told in zip_longest(rows, below, fillvalue=""):
        wide = f'<tr><td colspan="{len(heads)}">{told}</td></tr>' if told else ""
        body += line("td", list(row)).replace("<tr>", '<tr class="on">' if told else "<tr>") + wide
    return f"<table><thead>{line('th', heads)}</thead><tbody>{body}</tbody></table>"


def soft(content: str) -> str:
    """A line of less weight; HTML already."""
    return f'<p class="soft">{content}</p>'


def moment(since_1970_s: float) -> str:
    """A second in UTC, without the letters UTC: ``2026-11-22 06:30:00``."""
    return f"{dt.datetime.fromtimestamp(since_1970_s, dt.UTC):%Y-%m-%d %H:%M:%S}"


def span_of_time(from_s: float, until_s: float) -> str:
    """From one second to another, the day said once where it is the same."""
    began, ended = moment(from_s), moment(until_s)
    day = ended.partition(" ")[0]
    return f"{began} to {ended.removeprefix(f'{day} ') if began.startswith(day) else ended} UTC"
