"""Text that is not ours, made safe for what reads it in CI: Markdown, XML, workflow commands.

Prompts, ids and messages come from rows, and rows from anywhere: none may open a table cell, end an
element, or give the runner of a workflow a command. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: What XML 1.0 cannot hold, not even escaped.
_NO_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BACKTICKS: Final = re.compile("`+")
#: All punctuation but commas and hyphens, which mean nothing inside a line.
_MARKDOWN: Final = re.compile(r"[!-+./:-@\[-`{-~]")
_SPACES: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
#: GitHub reads a command at the beginning of a line, the older form anywhere in it.
_COMMAND: Final = re.compile(
    r"(^|[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029])(\s*)::|##\[", re.MULTILINE
)


def markdown_text(text: str) -> str:
    """One line of plain text in Markdown, also in a table: punctuation as character references."""
    line = _SPACES.sub(" ", text).encode("utf-8", "replace").decode()
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", line)


def markdown_code(text: str) -> str:
    """One line of text as a code span, also in a table: readable where Markdown is not rendered."""
    line = _SPACES.sub(" ", text).encode("utf-8", "replace").decode().strip() or " "
    fence = "`" * (1 + max((len(one) for one in _BACKTICKS.findall(line)), default=0))
    inner = line.replace("|", "\\|")
    return f"{fence} {inner} {fence}" if "`" in line else f"{fence}{inner}{fence}"


def json_line(document: Any, **options: Any) -> str:
    """A JSON object as one line, which gives a runner no command, whatever its texts hold."""
    # Only a text holds this mark, and there a character may be spelt as its number.
    return json.dumps(document, ensure_ascii=False, **options).replace("##", "#\\u0023")


def xml_text(text: str) -> str:
    """A text with what XML 1.0 cannot hold replaced; the writer of the XML escapes the rest."""
    return _NO_XML.sub("\ufffd", text)


def command_message(text: str) -> str:
    """The message of a workflow command: all of it one line, as GitHub unescapes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """A property of a workflow command, such as its title."""
    return command_message(text).replace(":", "%3A").replace(",", "%2C")


def without_commands(text: str) -> str:
    """Text for a log in which no line gives a command: the mark of one is broken by a space."""

    def broken(found: re.Match[str]) -> str:
        return "## [" if found[0] == "##[" else f"{found[1]}{found[2]}: :"

    return _COMMAND.sub(broken, text)
