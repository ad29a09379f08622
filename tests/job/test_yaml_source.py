"""YAML means what YAML 1.2 says, and every mistake has its line."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.job.yaml_source import Place, Source, path_text, read_yaml


def read(text: str) -> Source:
    """Read a text as if it were a file."""
    return read_yaml(text, Place(0, 1, "job.yaml"))


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("2026-11-22", "2026-11-22"),
        ("0.1%", "0.1%"),
        ("0b101", "0b101"),
        ("=", "="),
        ("<<", "<<"),
        ("true", True),
        ("False", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'null'", "null"),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("+7", 7),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.5", 1.5),
        ("-.inf", -math.inf),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("s3://a/b:c", "s3://a/b:c"),
        ('"\\u2028"', "\u2028"),
        ('"\\U0001F600"', "\U0001f600"),
    ],
)
def test_a_scalar_means_what_yaml_1_2_says(scalar: str, value: object) -> None:
    """No word turns into a boolean, a date or a number of seconds."""
    source = read(f"a: {scalar}\n")
    assert source.problems == []
    assert source.value == {"a": value}
    assert type(source.value["a"]) is type(value)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc:# ", min_size=1), inner),
    max_leaves=15,
)


@given(JSON_VALUES)
def test_json_is_read_as_json(value: Any) -> None:
    """YAML 1.2 contains JSON: the same text means the same to both readers."""
    text = json.dumps({"a": value}, ensure_ascii=True)
    if "\\ud" in text:
        text = json.dumps({"a": value}, ensure_ascii=False)
    if any(hidden in text for hidden in "\x85\u2028\u2029\ufffe\uffff"):
        return
    source = read(text)
    assert source.problems == []
    assert source.value == {"a": value}


def test_a_duplicate_key_is_refused_with_both_lines() -> None:
    """At any depth, and the rest of the file is still read."""
    source = read("a:\n  b: 1\n  c: 2\n  b: 3\nd: 4\n")
    assert [str(problem) for problem in source.problems] == [
        "job.yaml:4: a.b: found this key twice, first at job.yaml:2; wanted it once"
    ]
    assert source.value == {"a": {"b": 1, "c": 2}, "d": 4}


def test_every_key_and_leaf_knows_its_line() -> None:
    """A leaf below its key has the line of the key; a list's entries have their own."""
    source = read(
        "a:\n  b:\n    - x\n    - {c: 1,\n       d: 2}\n  e: |\n    long\n    text\nf: g\n"
    )
    lines = {path_text(path): place.line for path, place in source.places.items() if path}
    entry = {"a.b[1]": 4, "a.b[1].c": 4, "a.b[1].d": 5}
    assert lines == {"a": 1, "a.b": 2, "a.b[0]": 3, **entry, "a.e": 6, "f": 9}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: &x 1\nb: *x\n", "job.yaml:2: found the alias *x; write its value out"),
        ("a: 1\n1: 2\n", "job.yaml:2: found the key 1; wanted a key that is text"),
        ("a: 1\n? [b]\n: 2\n", "job.yaml:2: found a list or map; wanted a key that is text"),
        ("a: !!binary aGk=\n", "job.yaml:1: a: found the tag tag:yaml.org,2002:binary"),
        ("a: !!python/name:os.system x\n", "job.yaml:1: a: found the tag"),
        ("a: !!set {b}\n", "job.yaml:1: a: found the tag tag:yaml.org,2002:set"),
        ("a: !!int x\n", "job.yaml:1: a: found x, which is no int"),
        ("a: 1\n---\nb: 2\n", "job.yaml:2: found expected a single document"),
        ("a: 1\n\tb: 2\n", "job.yaml:2: found"),
        ("a: [1\n", "job.yaml:2: found while parsing a flow sequence"),
        ("a: 1\nb: \x07\n", "job.yaml:2: found the control character U+0007"),
        ("a: 1\nb: 'x\u2028y'\n", "job.yaml:2: found the character U+2028, which editors do not"),
        ('a: "\\ud83d\\ude00"\n', "job.yaml:1: a: found half of a surrogate pair"),
        ("a: " + "9" * 5000 + "\n", "which is no int this program takes"),
        ("a: " + "[" * 5000 + "\n", "found too many levels"),
        ("a: {url: s3://{date}/b}\n", "did you mean to put the text with {date} in quotes"),
    ],
)
def test_what_a_job_file_never_needs_is_refused_with_its_line(text: str, sentence: str) -> None:
    """One problem, with its place."""
    (problem,) = read(text).problems
    assert sentence in str(problem)


@pytest.mark.parametrize("text", ["\ufeffa: 1\n", "a: 1\r\n", "a: 1", "---\na: 1\n...\n"])
def test_marks_and_line_ends_of_editors_do_no_harm(text: str) -> None:
    """A byte order mark, CRLF, a missing LF, document marks."""
    source = read(text)
    assert (source.value, source.problems) == ({"a": 1}, [])
