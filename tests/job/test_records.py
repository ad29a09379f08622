"""Rows are read exactly or refused clearly; lines say what they must, byte for byte."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rdu_batch.errors import RowError
from rdu_batch.job.json_object import MAX_DEPTH
from rdu_batch.job.records import (
    DEAD_KEYS,
    MAX_DETAIL_CHARS,
    PREDICTION_KEYS,
    Fields,
    Reason,
    Row,
    Sample,
    dead_line,
    parse_row,
    prediction_line,
    row_key,
)

RowOf = Callable[..., Row]

TEXT = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
BLANK = st.text(" \t\r", max_size=2)


@st.composite
def json_objects(draw: st.DrawFn) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The text of an object with odd spacing, the text of each of its values, and the values."""
    values = draw(st.dictionaries(TEXT, VALUES, max_size=5))
    texts, members = {}, []
    for key, value in values.items():
        texts[key] = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=None)
        key_text = json.dumps(key, ensure_ascii=draw(st.booleans()))
        spaces = [draw(BLANK) for _ in range(4)]
        members.append(f"{spaces[0]}{key_text}{spaces[1]}:{spaces[2]}{texts[key]}{spaces[3]}")
    inside = ",".join(members) or draw(BLANK)
    return f"{draw(BLANK)}{{{inside}}}{draw(BLANK)}", texts, values


@given(json_objects())
def test_a_row_gives_its_values_and_their_exact_texts(
    row_of: RowOf, made: tuple[str, dict[str, str], dict[str, Any]]
) -> None:
    """Whatever the spacing, the escapes and the nesting."""
    line, texts, values = made
    fields = parse_row(row_of(line.encode()))
    assert fields.texts == texts
    assert fields.values == values == json.loads(line)
    assert list(fields.values) == list(values)


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        (b"{}", {}),
        (b" {\t} \r", {}),
        (b'{"a":1}\n', {"a": "1"}),
        (b'{"a" : -0.0e+5 }', {"a": "-0.0e+5"}),
        (b'{"a":1.10,"b":1E400}', {"a": "1.10", "b": "1E400"}),
        (b'{"a":18446744073709551616}', {"a": "18446744073709551616"}),
        (b'{"\\u0061":"\\u0041\\/"}', {"a": '"\\u0041\\/"'}),
        (b'{"a":[1, {"b" :2}],"c":"}{,"}', {"a": '[1, {"b" :2}]', "c": '"}{,"'}),
        (b'{"":"","a b":null}', {"": '""', "a b": "null"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": '"\\ud83d\\ude00"'}),
        (b'{"a":"\\\\ud800"}', {"a": '"\\\\ud800"'}),
        ('{"a":"\u2028\u2029\x85\x0b"}'.replace("\x0b", "").encode(), {"a": '"\u2028\u2029\x85"'}),
    ],
)
def test_known_texts_are_kept(row_of: RowOf, line: bytes, texts: dict[str, str]) -> None:
    """Numbers as written, escapes as written, brackets inside strings."""
    assert parse_row(row_of(line)).texts == texts


def test_numbers_of_5000_digits_keep_text_and_value(row_of: RowOf) -> None:
    """At the top and deep inside; Python's own limit is no reason to lose a row."""
    digits = "7" * 5000
    line = f'{{"a":{digits},"b":[-{digits}],"c":12,"d":0.{digits}}}'
    fields = parse_row(row_of(line.encode()))
    assert fields.texts["a"] == digits
    assert fields.values["a"] == Decimal(digits)
    assert str(fields.values["b"][0]) == f"-{digits}"
    assert (fields.values["c"], type(fields.values["c"])) == (12, int)
    assert math.isclose(fields.values["d"], 7 / 9)


def test_an_integer_below_the_limit_is_an_int(row_of: RowOf) -> None:
    """Exactly, however large."""
    for num_digits in (20, 3999, 4000):
        digits = "9" * num_digits
        value = parse_row(row_of(f'{{"a":{digits}}}'.encode())).values["a"]
        assert (type(value), value) == (int, 10**num_digits - 1)


def test_a_byte_order_mark_is_taken_away_only_at_the_start_of_the_file(row_of: RowOf) -> None:
    """Anywhere else it is not JSON."""
    line = b'\xef\xbb\xbf{"a":1}'
    assert parse_row(row_of(line, byte_offset=0)).values == {"a": 1}
    with pytest.raises(RowError, match="not_json"):
        parse_row(row_of(line, byte_offset=9))


@pytest.mark.parametrize(
    ("line", "reason", "part"),
    [
        (b"", "not_json", "character 1"),
        (b"nonsense", "not_json", "wanted a JSON object"),
        (b"{", "not_json", "character 2 of the line"),
        (b'{"a"', "not_json", 'wanted ":"'),
        (b'{"a":', "not_json", 'the value of "a", which starts at character 6'),
        (b'{"a":1', "not_json", "character 7 of the line"),
        (b'{"a":1,}', "not_json", "character 8 of the line is not valid JSON; wanted a key"),
        (b'{"a":1 "b":2}', "not_json", 'wanted "," and a key, or "}"'),
        (b"{a:1}", "not_json", "wanted a key in double quotes"),
        (b"{'a':1}", "not_json", "wanted a key in double quotes"),
        (b'{"a":1} x', "not_json", "wanted nothing after the object"),
        (b'{"a":1}{"a":1}', "not_json", "character 8 of the line"),
        (b'{"a":01}', "not_json", "character 7"),
        (b'{"a":"x\ty"}', "not_json", 'the value of "a"'),
        (b'{"a\x00":1}', "not_json", "the key at character 2"),
        (b"\x00\x00\x00", "not_json", "character 1"),
        (b'{"a":NaN}', "not_json", "found NaN, which JSON does not have"),
        (b'{"a":[-Infinity]}', "not_json", "found -Infinity, which JSON does not have"),
        (b'{"a":"\\x"}', "not_json", 'the value of "a"'),
        (b'{"a":"\xff"}', "not_unicode", "byte 7 of the line is not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not_unicode", "byte 7 of the line is not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not_unicode", "byte 1 of the line"),
        (b'{"a":"\\ud800"}', "not_unicode", "\\ud800 at character 7"),
        (b'{"a":"\\uDFFFx"}', "not_unicode", "\\uDFFF at character 7"),
        (b'{"a":"\\ud800\\n\\udc00"}', "not_unicode", "half of a surrogate pair"),
        (b'{"a":"\\ud800\\ud800\\udc00"}', "not_unicode", "\\ud800 at character 7"),
        (b'{"a":{"b":["\\ud800"]}}', "not_unicode", "half of a surrogate pair"),
        (b'{"\\udc00":1}', "not_unicode", "half of a surrogate pair"),
        (b'{"a":"\\\\\\ud800"}', "not_unicode", "half of a surrogate pair"),
        (b"[1]", "not_an_object", "the line is an array"),
        (b'"a"', "not_an_object", "the line is a string"),
        (b"12", "not_an_object", "the line is a number"),
        (b"null", "not_an_object", "the line is null"),
        (b"true", "not_an_object", "the line is true or false"),
        (b'{"a":1,"b":2,"a":3}', "duplicate_key", 'the key "a" is given twice'),
        (b'{"a":1,"\\u0061":3}', "duplicate_key", 'the key "a" is given twice'),
        (b'{"a":[{"b":1,"b":2}]}', "duplicate_key", 'the key "b" is given twice'),
        (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too_deep", "more than 256 deep"),
        (b'{"a":' + b'{"b":' * 10_000 + b"1" + b"}" * 10_000 + b"}", "too_deep", "256"),
        (b"[" * 10_000, "too_deep", "do not match"),
        (b'{"a":' + b"[" * 100_000, "too_deep", "do not match"),
    ],
)
def test_a_bad_row_is_refused_with_reason_and_place(
    row_of: RowOf, line: bytes, reason: str, part: str
) -> None:
    """The reason is of the list, the detail short and about the right place."""
    with pytest.raises(RowError) as caught:
        parse_row(row_of(line))
    assert caught.value.reason == Reason(reason)
    assert part in caught.value.detail
    assert len(caught.value.detail) <= MAX_DETAIL_CHARS


def test_nesting_is_refused_from_one_depth_on_however_deep_the_stack(row_of: RowOf) -> None:
    """A worker with a deep stack and a shallow one refuse the same rows."""

    def at_depth(frames: int, line: bytes) -> str:
        if frames:
            return at_depth(frames - 1, line)
        try:
            parse_row(row_of(line))
        except RowError as error:
            return str(error)
        return "read"

    def nested(levels: int, opens: str, closes: str) -> bytes:
        """An object with arrays, objects or both in turn inside, so many levels in all."""
        inside = [i % len(opens) for i in range(levels - 1)]
        start = "".join(opens[i] + ('"k":' if opens[i] == "{" else "") for i in inside)
        end = "".join(closes[i] for i in reversed(inside))
        return f'{{"a":{start}7{end}}}'.encode()

    free = sys.getrecursionlimit() - _stack_depth()
    for opens, closes in (("[", "]"), ("{", "}"), ("[{", "]}")):
        for frames in (0, free - MAX_DEPTH - 60):
            assert at_depth(frames, nested(MAX_DEPTH, opens, closes)) == "read"
            assert at_depth(frames, nested(MAX_DEPTH + 1, opens, closes)).startswith("too_deep: ")


def _stack_depth() -> int:
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    return depth


def test_many_brackets_side_by_side_or_in_strings_are_not_deep(row_of: RowOf) -> None:
    """Depth is counted, not brackets."""
    value = {"a": [{"b": []}] * 1000, "c": "[{" * 1000, "d\\": '"[' * 1000}
    assert parse_row(row_of(json.dumps(value).encode())).values == value


def read_or_refused(row: Row) -> Fields | RowError:
    """What comes of a row."""
    try:
        return parse_row(row)
    except RowError as error:
        return error


@given(st.binary(max_size=40) | st.text('{}[]":,\\ua0dc18.- \tnulNaI', max_size=40).map(str.encode))
@example(b'{"a":1}')
def test_any_bytes_are_read_as_json_reads_them_or_refused(row_of: RowOf, line: bytes) -> None:
    """Nothing but a RowError comes out, and nothing is read that the standard library refuses."""
    read = read_or_refused(row_of(line))
    if isinstance(read, RowError):
        assert read.reason in set(Reason)
        assert len(read.detail) <= MAX_DETAIL_CHARS
        assert "0x" not in read.detail
    else:
        assert read.values == json.loads(line)
        assert {key: json.loads(text) for key, text in read.texts.items()} == read.values


@given(st.dictionaries(TEXT, VALUES, max_size=3), st.integers(0, 60), st.integers(0, 127))
def test_a_damaged_byte_never_gives_another_reading(
    row_of: RowOf, values: dict[str, Any], at: int, byte: int
) -> None:
    """One byte changed: what is still read is what the standard library reads."""
    line = bytearray(json.dumps(values).encode())
    line[at % len(line)] = byte
    try:
        fields = parse_row(row_of(bytes(line)))
    except RowError:
        return
    assert fields.values == json.loads(bytes(line))


# --- Lines ---------------------------------------------------------------------------------------


@given(json_objects(), TEXT, st.lists(TEXT.filter(lambda name: name not in PREDICTION_KEYS)))
def test_a_prediction_line_is_json_with_fixed_keys_and_exact_texts(
    row_of: RowOf,
    made: tuple[str, dict[str, str], dict[str, Any]],
    prediction: str,
    other: list[str],
) -> None:
    """In the order of the design; absent fields are null; one LF, at the end."""
    line, texts, values = made
    row = row_of(line.encode())
    carry = [name for name in dict.fromkeys([*values, *other]) if name not in PREDICTION_KEYS]
    id_field = next(iter(values), None)
    written = prediction_line(
        row,
        parse_row(row),
        id_field=id_field,
        carry=carry,
        num_prompt_tokens=3,
        samples=[Sample(prediction, "eos", 4)],
    )
    assert written.count(b"\n") == 1
    assert written.endswith(b"}\n")
    read = json.loads(written)
    assert list(read) == [*PREDICTION_KEYS, *carry]
    assert read["row"] == [2, 3]
    assert read["prediction"] == prediction
    assert read["id"] == (values[id_field] if id_field is not None else None)
    kept = parse_row(Row(0, 0, 1, "p", 9, written)).texts
    for name in carry:
        assert kept[name] == texts.get(name, "null")
    assert row_key(written) == (2, 3)


def test_a_prediction_line_byte_for_byte(row_of: RowOf) -> None:
    """The one text of this row; a change here changes every output."""
    row = row_of(b'{"id": 1.50, "label" : {"b":1,  "a":"\xe2\x80\xa8"}}')
    written = prediction_line(
        row,
        parse_row(row),
        id_field="id",
        carry=("label", "none"),
        num_prompt_tokens=12,
        samples=[Sample('say "\u2028h\u00e9\n"', "length", 34)],
    )
    assert written.decode() == (
        '{"row":[2,3],"id":1.50,"prediction":"say \\"\u2028h\u00e9\\n\\"","finish_reason":"length",'
        '"num_prompt_tokens":12,"num_generated_tokens":34,'
        '"label":{"b":1,  "a":"\u2028"},"none":null}\n'
    )


def test_a_prediction_line_of_several_samples_byte_for_byte(row_of: RowOf) -> None:
    """Lists in the order of the samples, under the same keys, in the same order."""
    row = row_of(b'{"label":1.0}')
    samples = [
        Sample("a,", "eos", 2, (-0.5, 0.0)),
        Sample("", "stop", 1, (-1e-06,)),
        Sample("", "length", 0, ()),
    ]
    written = prediction_line(
        row, parse_row(row), id_field=None, carry=("label",), num_prompt_tokens=3, samples=samples
    )
    assert written.decode() == (
        '{"row":[2,3],"id":null,"prediction":["a,","",""],"finish_reason":["eos","stop","length"],'
        '"num_prompt_tokens":3,"num_generated_tokens":[2,1,0],'
        '"logprobs":[[-0.5,0.0],[-1e-06],[]],"label":1.0}\n'
    )


def test_log_probabilities_of_one_sample_are_one_list(row_of: RowOf) -> None:
    """Right behind the fixed keys, before what is carried."""
    row = row_of(b'{"label":1}')
    samples = [Sample("a", "eos", 2, (-0.25, -3.5))]
    written = prediction_line(
        row, parse_row(row), id_field=None, carry=("label",), num_prompt_tokens=3, samples=samples
    )
    assert b',"num_generated_tokens":2,"logprobs":[-0.25,-3.5],"label":1}' in written
    assert tuple(json.loads(written)) == (*PREDICTION_KEYS, "logprobs", "label")


def test_a_cut_prompt_says_how_much_it_lost_before_what_is_carried(row_of: RowOf) -> None:
    """Zero too, as the job asked; a job that cuts nothing has no such key."""
    row = row_of(b'{"label":1}')
    for num_cut, wanted in ((5, b',"num_cut_tokens":5'), (0, b',"num_cut_tokens":0'), (None, b"")):
        written = prediction_line(
            row,
            parse_row(row),
            id_field=None,
            carry=("label",),
            num_prompt_tokens=3,
            samples=[Sample("a", "eos", 2)],
            num_cut_tokens=num_cut,
        )
        assert written.endswith(b'"num_generated_tokens":2' + wanted + b',"label":1}\n')


def test_a_dead_line_byte_for_byte(row_of: RowOf) -> None:
    """The id keeps its text; a row that cannot be read has none."""
    row = row_of(b"?")
    written = dead_line(row, reason=Reason.NOT_JSON, detail="why", id_text="1.50")
    assert written == (
        b'{"row":[2,3],"id":1.50,"path":"a/b.jsonl","byte_offset":7,'
        b'"reason":"not_json","detail":"why"}\n'
    )
    assert b'"id":null,' in dead_line(row, reason="not_json", detail="", id_text=None)


@given(st.text(), st.text(st.characters(codec="utf-8")))
def test_a_dead_line_is_json_whatever_the_detail(row_of: RowOf, detail: str, path: str) -> None:
    """Half surrogates and long texts too: writing a dead letter must never fail."""
    row = Row(0, 11, 12, path, 13, b"?")
    written = dead_line(row, reason="template_error", detail=detail * 9, id_text=None)
    assert written.count(b"\n") == 1
    read = json.loads(written)
    assert tuple(read) == DEAD_KEYS
    assert len(read["detail"]) <= MAX_DETAIL_CHARS
    assert read["path"] == path
    assert row_key(written) == (11, 12)


@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"row":[1]}', b'{"row":[-1,2]', b'{"row":[01,2]', b' {"row":[1,2]']
)
def test_a_line_without_a_row_key_is_refused(line: bytes) -> None:
    """Only this program's own lines are read back."""
    with pytest.raises(ValueError, match="wanted a line that starts with"):
        row_key(line)


def test_an_absent_id_field_is_null() -> None:
    """Without id_field, or where the row lacks it."""
    for id_field in (None, "id"):
        written = prediction_line(
            Row(0, 0, 1, "p", 0, b"{}"),
            Fields({}, {}),
            id_field=id_field,
            carry=(),
            num_prompt_tokens=1,
            samples=[Sample("", "eos", 1)],
        )
        assert re.match(rb'\{"row":\[0,1\],"id":null,', written)
