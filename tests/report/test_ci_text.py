"""Text of anyone's, in what CI reads: against the readers themselves."""

import html
import json
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.report.ci_text import (
    command_message,
    command_property,
    json_line,
    markdown_code,
    markdown_text,
    without_commands,
    xml_text,
)

ANY_TEXT = st.text(st.characters(), max_size=60)
HOSTILE = st.lists(
    st.sampled_from(["::", "##[", "\n", "\r", "\u2028", " ", "\t", "error", "%0A", "|", "<", "`"]),
    max_size=12,
).map("".join)


@given(ANY_TEXT | HOSTILE)
def test_markdown_shows_the_text_and_has_no_mark_of_its_own(text):
    """Character references alone, which a reader turns back; one line, for a table's cell."""
    shown = markdown_text(text)
    assert not re.search(r"[|`<>*_\[\]\\@!]|\n|\r", shown)
    assert not re.search(r"&(?!#\d+;)", shown)
    folded = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
    wanted = folded.encode("utf-8", "replace").decode()
    assert re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), shown) == wanted


@given(ANY_TEXT | HOSTILE)
def test_a_code_span_is_one_line_that_its_text_cannot_close(text):
    """The fence is longer than any run of backticks in it; a cell of a table stays one."""
    shown = markdown_code(text)
    fence = re.match("`+", shown)[0]
    inner = shown[len(fence) : -len(fence)]
    assert shown.endswith(fence)
    assert max(map(len, re.findall("`+", inner)), default=0) < len(fence)
    assert not inner.startswith("`")
    assert not inner.endswith("`")
    assert not re.search(r"[\n\r]|(?<!\\)\|", inner)


@given(st.dictionaries(HOSTILE | st.text("#[x", max_size=6), HOSTILE))
def test_a_json_line_is_read_back_and_gives_no_command(document):
    """GitHub's runner takes its older commands anywhere in a line."""
    line = json_line(document)
    assert json.loads(line) == document
    assert "##" not in line
    assert "\n" not in line


@given(ANY_TEXT)
def test_xml_of_any_text_is_read_back(text):
    """By a parser; what XML cannot hold is replaced, all else is kept."""
    element = ET.Element("x", told=xml_text(text))
    element.text = xml_text(text)
    read = ET.fromstring(ET.tostring(element, encoding="utf-8"))  # noqa: S314 - our own
    # A reader of XML makes one line end of CR and CR LF in text.
    assert (read.text or "") == xml_text(text).replace("\r\n", "\n").replace("\r", "\n")
    assert len(read.get("told")) == len(xml_text(text))


@given(ANY_TEXT | HOSTILE)
def test_a_workflow_command_is_one_line_and_gives_its_message_back(text):
    """As GitHub's runner unescapes it, in this order."""
    told = command_message(text)
    assert "\n" not in told
    assert "\r" not in told
    back = told.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
    assert back == text
    assert not {":", ","} & set(command_property(text))


@given(HOSTILE)
def test_no_line_of_a_log_gives_a_command(text):
    """Neither form, whatever a viewer takes for the end of a line."""
    shown = without_commands(text)
    assert "##[" not in shown
    assert not any(line.lstrip().startswith("::") for line in shown.splitlines())


@pytest.mark.parametrize("text", ["", "a :: b", "rows 3:4", "# 1 ##", "x::y\nrest"])
def test_a_harmless_text_is_left_as_it_is(text):
    """Only what would be a command is touched."""
    assert without_commands(text) == text
    assert html.unescape(markdown_text("a b")) == "a b"
