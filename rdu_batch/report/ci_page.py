"""How a run ended, for CI: a Markdown summary, a JUnit report and GitHub's annotations. Pure.

All are made of the JSON object that ends standard output, of a summary or of an error, so that they
say what it says.
"""

from __future__ import annotations

import textwrap
import xml.etree.ElementTree as ET
from html import escape
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.report.ci_text import (
    command_message,
    command_property,
    markdown_code,
    markdown_text,
    xml_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

#: GitHub throws a step's summary of more than 1 MiB away, all of it.
MAX_SUMMARY_BYTES: Final = 900 << 10
_MAX_ANNOTATION_CHARS: Final = 2000
_MAX_LINE_CHARS: Final = 100
#: Label and key of what is shown of a run that came to its end, always and if it is not 0.
_ALWAYS_SHOWN: Final = (("rows", "rows"), ("predictions", "predictions"))
_SHOWN: Final = (
    ("dead letters", "dead"),
    ("rows done by an earlier run", "rows_resumed"),
    ("prompt tokens", "prompt_tokens"),
    ("generated tokens", "generated_tokens"),
    ("seconds", "wall_s"),
    ("workers", "workers"),
)
#: What an exit code says, in a few words; see ``errors.py``.
_SAID: Final = {
    2: "wrong usage",
    3: "the job file is wrong, or the output holds another job",
    4: "an input is missing, unreadable or changed",
    6: "the store failed",
    8: "the artifact is missing, damaged or for another target",
    10: "stopped early",
    11: "the wait ended, the job goes on",
    12: "stopped; the same command goes on",
    13: "the Ray cluster cannot be reached, or refused",
    14: "another driver owns this output",
}


def summary_markdown(told: Mapping[str, Any], name: str, *, fail_on: str = "limit") -> str:
    """A section for a step's summary, at most ``MAX_SUMMARY_BYTES``.

    Args:
        told: the JSON object that ends standard output.
        name: of the job, with its date, or of the submission.
        fail_on: which dead letters were to end with exit 5: ``limit``, ``any-dead`` or ``never``.
    """
    lines = [f"## rdu-batch: {markdown_text(name)}: {_found(told)}", ""]
    if "error" in told:
        # A fence could be closed by the message; nothing escaped closes this.
        lines += [f"<pre>{escape(_folded(xml_text(str(told['message']))))}</pre>", ""]
        if "output" in told:
            lines += [f"Output: {markdown_code(str(told['output']))}", ""]
        return _cut("\n".join(lines) + "\n")
    lines += ["| | |", "| --- | ---: |"]
    lines += [f"| {label} | {told[key]:,} |" for label, key in _ALWAYS_SHOWN]
    lines += [f"| {label} | {told[key]:,} |" for label, key in _SHOWN if told.get(key)]
    if told.get("reused"):
        reused = told["reused"]
        taken = reused["rows_of_unchanged_files"] + reused["rows_of_same_content"]
        lines.append(f"| rows taken over from an earlier output | {taken:,} |")
    lines += [f"| output | {markdown_code(str(told['output']))} |", ""]
    if told["dead_reasons"]:
        lines += ["| dead letters | rows |", "| --- | ---: |"]
        lines += [
            f"| {markdown_code(reason)} | {rows:,} |"
            for reason, rows in sorted(told["dead_reasons"].items())
        ]
        lines += ["", _about_dead(told, fail_on), ""]
    return _cut("\n".join(lines) + "\n")


def _about_dead(told: Mapping[str, Any], fail_on: str) -> str:
    """Where the dead rows are, whether they were too many, and what to do with them."""
    where = markdown_code(f"{str(told['output']).rstrip('/')}/dead-*")
    judged = {
        (True, "any-dead"): "None was to be dead (`--fail-on any-dead`). ",
        (True, "limit"): "They are more than `limits.max_dead_rows` allows. ",
        (False, "never"): "Nobody judged how many there are (`--fail-on never`). ",
    }.get((bool(told["exit"]), fail_on), "")
    return (
        f"{judged}The output is complete; each dead row has its reason in {where}. Rows that were "
        "killed or too slow can be run again (`rdu-batch retry-dead`); for the others, mend the "
        "input or the job and choose a new output."
    )


def junit_xml(told: Mapping[str, Any], name: str, *, fail_on: str = "limit") -> bytes:
    """A JUnit report of two cases: the run came to its end, and few enough rows are dead."""
    suite = ET.Element(
        "testsuite", name=xml_text(f"rdu-batch {name}"), tests="2", time=f"{told.get('wall_s', 0)}"
    )
    ended, dead = (
        ET.SubElement(suite, "testcase", classname=xml_text(name), name=case)
        for case in ("the run came to its end", "dead letters are within the limit")
    )
    num_skipped = 0
    if "error" in told:
        message = xml_text(str(told["message"]))
        first_line = message.partition("\n")[0]
        kind = {"message": first_line, "type": f"{told['error']} (exit {told['exit']})"}
        ET.SubElement(ended, "error", kind).text = message
        ET.SubElement(dead, "skipped", message="the run did not come to its end")
        num_skipped = 1
    elif told["exit"]:
        ET.SubElement(
            dead,
            "failure",
            message=xml_text(_headline(told, name)),
            type=f"exit {told['exit']}",
        ).text = xml_text("\n".join(f"{one}: {rows}" for one, rows in told["dead_reasons"].items()))
    elif told["dead"] and fail_on == "never":
        message = f"not judged (--fail-on never): {_dead_of(told)}"
        ET.SubElement(dead, "skipped", message=message)
        num_skipped = 1
    suite.set("errors", str(int("error" in told)))
    suite.set("failures", str(int("error" not in told and bool(told["exit"]))))
    suite.set("skipped", str(num_skipped))
    document: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def github_annotations(told: Mapping[str, Any], name: str) -> list[str]:
    """Workflow commands: one error for a run that failed, one warning for what is odd."""
    title = f"rdu-batch {name}"
    if "error" in told:
        return [_annotation("error", title, str(told["message"]))]
    found = f"{_found(told)}; output {told['output']}"
    if told["exit"]:
        return [_annotation("error", title, found)]
    if told["dead"] or not told["rows"]:
        return [_annotation("warning", title, found)]
    return []


def _annotation(level: str, title: str, message: str) -> str:
    shown = message[:_MAX_ANNOTATION_CHARS]
    return f"::{level} title={command_property(title)}::{command_message(shown)}"


def _headline(told: Mapping[str, Any], name: str) -> str:
    return f"{name}: {_found(told)}"


def _found(told: Mapping[str, Any]) -> str:
    """How it ended, without the name."""
    if "error" in told:
        return f"{_SAID.get(told['exit'], str(told['error']))}, exit {told['exit']}"
    notes = [str(told["state"])]
    if not told["rows"]:
        notes.append("0 rows")
    if told["dead"]:
        notes.append(_dead_of(told))
    return ", ".join([*notes, f"exit {told['exit']}"])


def _dead_of(told: Mapping[str, Any]) -> str:
    return f"{told['dead']:,} of {told['rows']:,} rows are dead letters"


def _folded(message: str) -> str:
    """No line so long that a page must be moved sideways to read it."""
    return "\n".join(
        textwrap.fill(line, _MAX_LINE_CHARS, break_long_words=False, break_on_hyphens=False)
        for line in message.split("\n")
    )


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
