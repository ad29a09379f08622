"""How a run ended, for CI: a Markdown summary, a JUnit report and GitHub's annotations. Pure.

All are made of the JSON object that ends standard output, of a summary or of an error, so that they
say what it says.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html import escape
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.report.ci_text import command_message, command_property, markdown_text, xml_text

if TYPE_CHECKING:
    from collections.abc import Mapping

#: GitHub throws a step's summary of more than 1 MiB away, all of it.
MAX_SUMMARY_BYTES: Final = 900 << 10
_MAX_ANNOTATION_CHARS: Final = 2000
#: Label and key of what is shown of a run that came to its end.
_SHOWN: Final = (
    ("rows", "rows"),
    ("predictions", "predictions"),
    ("dead letters", "dead"),
    ("rows done by an earlier run", "rows_resumed"),
    ("prompt tokens", "prompt_tokens"),
    ("generated tokens", "generated_tokens"),
    ("generated tokens a second", "tokens_per_s"),
    ("seconds", "wall_s"),
    ("workers", "workers"),
)


def summary_markdown(told: Mapping[str, Any], name: str) -> str:
    """A section for a step's summary, at most ``MAX_SUMMARY_BYTES``.

    Args:
        told: the JSON object that ends standard output.
        name: of the job, for a run that ended before it could say more.
    """
    lines = [f"## rdu-batch: {markdown_text(_headline(told, name))}", ""]
    if "error" in told:
        # A fence could be closed by the message; nothing escaped closes this.
        lines += [f"<pre>{escape(xml_text(str(told['message'])))}</pre>", ""]
    else:
        lines += ["| | |", "| --- | ---: |"]
        lines += [f"| {label} | {told[key]:,} |" for label, key in _SHOWN if told.get(key)]
        lines += [f"| output | {markdown_text(str(told['output']))} |", ""]
        if told["dead_reasons"]:
            lines += ["| dead letters | rows |", "| --- | ---: |"]
            lines += [
                f"| {markdown_text(reason)} | {rows:,} |"
                for reason, rows in sorted(told["dead_reasons"].items())
            ]
            lines.append("")
    return _cut("\n".join(lines) + "\n")


def junit_xml(told: Mapping[str, Any], name: str) -> bytes:
    """A JUnit report of two cases: the run came to its end, and few enough rows are dead."""
    suite = ET.Element(
        "testsuite", name=xml_text(f"rdu-batch {name}"), tests="2", time=f"{told.get('wall_s', 0)}"
    )
    ended, dead = (
        ET.SubElement(suite, "testcase", classname=xml_text(name), name=case)
        for case in ("the run came to its end", "dead letters are within the limit")
    )
    if "error" in told:
        message = xml_text(str(told["message"]))
        first_line = message.partition("\n")[0]
        kind = {"message": first_line, "type": f"{told['error']} (exit {told['exit']})"}
        ET.SubElement(ended, "error", kind).text = message
        ET.SubElement(dead, "skipped", message="the run did not come to its end")
    elif told["exit"]:
        ET.SubElement(
            dead,
            "failure",
            message=xml_text(_headline(told, name)),
            type=f"exit {told['exit']}",
        ).text = xml_text("\n".join(f"{one}: {rows}" for one, rows in told["dead_reasons"].items()))
    num_errors, num_failures = "error" in told, "error" not in told and bool(told["exit"])
    suite.set("errors", str(int(num_errors)))
    suite.set("failures", str(int(num_failures)))
    suite.set("skipped", str(int(num_errors)))
    document: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def github_annotations(told: Mapping[str, Any], name: str) -> list[str]:
    """Workflow commands: one error for a run that failed, one warning for dead letters allowed."""
    if "error" in told:
        return [_annotation("error", f"rdu-batch {name}", str(told["message"]))]
    if told["exit"]:
        return [_annotation("error", f"rdu-batch {name}", _headline(told, name))]
    if told["dead"]:
        return [_annotation("warning", f"rdu-batch {name}", _headline(told, name))]
    return []


def _annotation(level: str, title: str, message: str) -> str:
    shown = message[:_MAX_ANNOTATION_CHARS]
    return f"::{level} title={command_property(title)}::{command_message(shown)}"


def _headline(told: Mapping[str, Any], name: str) -> str:
    if "error" in told:
        return f"{name}: {told['error']}, exit {told['exit']}"
    dead = f", {told['dead']:,} of {told['rows']:,} rows are dead letters" if told["dead"] else ""
    return f"{name}: {told['state']}{dead}, exit {told['exit']}"


def _cut(text: str) -> str:
    """The text, or as many whole lines of it as there is room for, and a word that it was cut."""
    content = text.encode("utf-8", "replace")
    if len(content) <= MAX_SUMMARY_BYTES:
        return content.decode()
    if "<pre>" in text:
        kept = content[: text.encode("utf-8", "replace").find(b"<pre>")].decode()
        return kept + "The message is too long for a summary; see the log.\n"
    kept = content[:MAX_SUMMARY_BYTES].decode(errors="ignore").rpartition("\n")[0]
    return kept + "\n\nThe rest was cut: a summary holds 1 MiB.\n"
