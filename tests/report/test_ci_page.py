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
    assert "| `wrong_type` | 10 |" in text
    assert "| output | `out` |" in text
    assert text.startswith(
        "## rdu-batch: nightly: complete, 10 of 1,200 rows are dead letters, exit 0\n"
    )


def test_a_day_without_rows_is_seen_to_be_one():
    """Whoever waits for predictions must not take it for a good night."""
    empty = ended(rows=0, predictions=0, dead=0, dead_reasons={})
    text = summary_markdown(empty, "nightly 2026-11-22")
    assert text.startswith("## rdu-batch: nightly 2026-11-22: complete, 0 rows, exit 0\n")
    assert "| rows | 0 |" in text
    (command,) = github_annotations(empty, "nightly")
    assert command.startswith("::warning ")


@pytest.mark.parametrize(
    ("code", "fail_on", "words"),
    [
        (5, "limit", "more than `limits.max_dead_rows` allows"),
        (5, "any-dead", "`--fail-on any-dead`"),
        (0, "never", "`--fail-on never`"),
        (0, "limit", "The output is complete"),
    ],
)
def test_a_summary_of_dead_letters_says_where_they_are_and_what_to_do(code, fail_on, words):
    """And by which rule they are too many."""
    text = summary_markdown(ended(exit=code), "nightly", fail_on=fail_on)
    assert words in text
    assert "`out/dead-*`" in text
    assert "retry-dead" in text


def test_dead_letters_that_nobody_judged_do_not_pass():
    """They are within no limit."""
    suite = ET.fromstring(junit_xml(ended(), "nightly", fail_on="never"))  # noqa: S314 - our own
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    (skipped,) = suite.findall("testcase/skipped")
    assert "10 of 1,200 rows" in skipped.get("message")


def test_a_failure_is_said_in_words_with_its_output():
    """Not by the name of a class."""
    text = summary_markdown({**FAILED, "output": "s3://x/out"}, "nightly")
    assert "an input is missing, unreadable or changed, exit 4" in text
    assert "`s3://x/out`" in text


def test_a_summary_of_a_failure_holds_the_message_and_nothing_of_it_is_markup():
    """Between marks that the message cannot close."""
    text = summary_markdown(FAILED, "job.yaml")
    assert text.count("</pre>") == text.count("<pre>") == 1
    assert "<script>" not in text
    assert "exit 4" in text


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
