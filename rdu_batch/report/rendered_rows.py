"""Sampled rows for people: each prompt as it is, with nothing in it that a terminal would obey.

Promises: control characters, marks that turn the direction of text, and lone surrogates are shown
as escapes; lines of a prompt stay lines. Does not: render or count.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Longest prompt that is shown whole, in characters.
MAX_SHOWN_CHARS = 2000


def rendered_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines for people of rows as ``RehearsedRow.to_json`` has them."""
    return [line for row in rows for line in _lines_of(row)]


def _lines_of(row: dict[str, Any]) -> list[str]:
    facts = []
    if row["num_prompt_tokens"] is not None:
        facts.append(f"{row['num_prompt_tokens']:,} tokens")
    if row["num_cut_tokens"]:
        facts.append(f"{row['num_cut_tokens']:,} cut; the prompt as it is before that")
    if row["dead_reason"] is not None:
        facts.append(escaped(f"dead letter: {row['dead_reason']}: {row['dead_detail']}"))
    lines = [f"{escaped(row['path'])}:{row['line']}  {', '.join(facts)}"]
    if row["prompt"] is not None:
        lines += _indented(row["prompt"])
    for message in row["messages"] or ():
        lines += [f"  {escaped(message['role'])}:", *_indented(message["content"])]
    return lines


def _indented(text: str) -> list[str]:
    more = len(text) - MAX_SHOWN_CHARS
    shown = text if more <= 0 else text[:MAX_SHOWN_CHARS]
    lines = [f"  | {escaped(line)}" for line in shown.split("\n")]
    return lines if more <= 0 else [*lines, f"  ... and {more:,} characters more"]


def escaped(text: str) -> str:
    """A text without line ends in which everything that is not printable is a JSON escape."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
