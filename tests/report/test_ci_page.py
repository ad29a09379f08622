"""How a run ended, as CI reads it."""

import re
import xml.etree.ElementTree as ET

import pytest

from rdu_batch.report.ci_page import (
    MAX_SUMMARY_BYTES,
    github_annotations,
    junit_xml,
    summary_markdown,
)
from rdu_batch.report.summary import Summary

HOSTILE = "x|`</pre>\n::error::y\n##[group]\x00\ud800<script>"


def ended(**changes):
    sizes = {"rows": 1200, "predictions": 1190, "dead": 10, "wall_s": 2.5}
    told = {"dead_reasons": {"wrong_type": 10}, "output": "out", **sizes, **changes}
    return Summary("nightly", "complete", told.pop("exit", 0), told.pop("output"), **told).to_json()


FAILED = {"exit": 4, "error": "InputError", "message": HOSTILE}


def test_a_summary_has_the_numbers_and_the_reasons():
    """A table of each."""
    text = summary_markdown(ended(), "nightly")
    assert "| rows | 1,200 |" in text
    assert f"| {'wrong_type'.replace('_', '&#95;')} | 10 |" in text
    assert text.startswith("## rdu&#45;batch".replace("&#45;", "-"))


def test_a_summary_of_a_failure_holds_the_message_and_nothing_of_it_is_markup():
    """Between marks that the message cannot close."""
    text = summary_markdown(FAILED, "job.yaml")
    assert text.count("</pre>") == text.count("<pre>") == 1
    assert "<script>" not in text
    assert "exit 4" in text.replace("&#44;", ",")


@pytest.mark.parametrize("message", ["<" * MAX_SUMMARY_BYTES, "a\n" * MAX_SUMMARY_BYTES])
def test_a_summary_that_is_too_long_says_so(message):
    """GitHub would throw all of it away."""
    text = summary_markdown({**FAILED, "message": message}, "nightly")
    assert len(text.encode()) <= MAX_SUMMARY_BYTES
    assert "too long for a summary" in text


def test_reasons_beyond_a_summary_are_cut_at_a_line():
    """With a word about it."""
    reasons = {f"reason-{n:06d}" * 4: n for n in range(20_000)}
    text = summary_markdown(ended(dead_reasons=reasons), "nightly")
    assert len(text.encode()) < 1 << 20
    assert text.endswith("The rest was cut: a summary holds 1 MiB.\n")


@pytest.mark.parametrize(
    ("told", "counts"),
    [(ended(), "000"), (ended(exit=5), "010"), (FAILED, "101")],
    ids=["allowed", "too many dead", "error"],
)
def test_a_junit_report_counts_what_it_holds(told, counts):
    """Errors, failures and skipped cases, as its elements say."""
    suite = ET.fromstring(junit_xml(told, HOSTILE))  # noqa: S314 - our own
    found = [len(suite.findall(f"testcase/{kind}")) for kind in ("error", "failure", "skipped")]
    assert "".join(map(str, found)) == counts
    assert "".join(suite.get(kind) for kind in ("errors", "failures", "skipped")) == counts
    assert len(suite.findall("testcase")) == int(suite.get("tests"))


@pytest.mark.parametrize(
    ("told", "level"),
    [(ended(), "warning"), (ended(exit=5), "error"), (FAILED, "error")],
    ids=["allowed", "too many dead", "error"],
)
def test_an_annotation_is_one_command(told, level):
    """One line, whatever the message holds; its level says how bad it is."""
    (command,) = github_annotations(told, HOSTILE)
    assert re.fullmatch(rf"::{level} title=[^:,\n\r]*::[^\n\r]*", command)


def test_a_sound_run_needs_no_annotation():
    """Ten of them a step are all that is shown."""
    assert github_annotations(ended(dead=0, dead_reasons={}), "nightly") == []
