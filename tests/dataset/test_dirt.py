"""Each kind of dirt in an input: a row, or a dead letter that says where and why.

The table of ``rdu_batch/dataset/README.md``, one by one and end to end.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from rdu_batch.dataset.planning import make_plan, save_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import RowError
from rdu_batch.job.records import Fields, Row, dead_line, parse_row
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import open_store

MakeSpec = Callable[..., JobSpec]
BOM = b"\xef\xbb\xbf"
DEEP = b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
GOOD = b'{"text": "good"}'
#: (what, line, the values it is read as, or the reason it is dead)
DIRT: list[tuple[str, bytes, dict | str]] = [
    ("crlf", b'{"a": 1}\r', {"a": 1}),
    ("bom in the middle", BOM + b'{"a": 1}', "not_json"),
    ("nul in a string", b'{"a": "\x00"}', "not_json"),
    ("nul line", b"\x00" * 50, "not_json"),
    ("escaped nul", b'{"a": "\\u0000"}', {"a": "\0"}),
    ("invalid utf-8", b'{"a": "\xff"}', "not_unicode"),
    ("surrogate in utf-8", b'{"a": "\xed\xa0\x80"}', "not_unicode"),
    ("lone surrogate", b'{"a": "\\ud800"}', "not_unicode"),
    ("surrogate pair", b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ("duplicate key", b'{"a": 1, "a": 2}', "duplicate_key"),
    ("duplicate key within", b'{"a": {"b": 1, "b": 1}}', "duplicate_key"),
    ("duplicate escaped key", b'{"a": 1, "\\u0061": 2}', "duplicate_key"),
    ("nan", b'{"a": NaN}', "not_json"),
    ("infinity", b'{"a": -Infinity}', "not_json"),
    ("2^64", b'{"a": 18446744073709551616}', {"a": 2**64}),
    ("deep", DEEP, "too_deep"),
    ("u+2028", '{"a": "x\u2028\u0085y"}'.encode(), {"a": "x\u2028\u0085y"}),
    ("no object", b"[1]", "not_an_object"),
    ("cut", b'{"a": ', "not_json"),
    ("two objects", b'{"a": 1}{"a": 2}', "not_json"),
]


def rows_of(make_spec: MakeSpec, content: bytes, name: str = "a.jsonl", **sizes: int) -> list[Row]:
    """All rows of one file."""
    root = f"memory://{uuid.uuid4().hex}"
    open_store(f"{root}/in").put_whole(name, content)
    output = open_store(f"{root}/out")
    spec = make_spec([f"{root}/in/*"], output.url)
    plan = save_plan(output, make_plan(spec, "x", window_bytes=64))
    return list(RowReader(output, plan, window_bytes=64, **sizes).read_rows(0, plan.num_rows))


@pytest.mark.parametrize(
    ("line", "wanted"), [one[1:] for one in DIRT], ids=[one[0] for one in DIRT]
)
def test_dirt_ends_as_the_table_says(make_spec: MakeSpec, line: bytes, wanted: dict | str) -> None:
    """With its file, line and byte offset; the rows around it are as if it were not there."""
    before, dirty, after = rows_of(make_spec, GOOD + b"\n\n" + line + b"\n" + GOOD)
    assert (dirty.line, dirty.byte_offset, dirty.line_bytes) == (3, len(GOOD) + 2, line)
    assert parse_row(before).values == parse_row(after).values == {"text": "good"}
    if isinstance(wanted, dict):
        assert parse_row(dirty).values == wanted
        return
    with pytest.raises(RowError) as dead:
        parse_row(dirty)
    assert dead.value.reason == wanted
    letter = dead_line(dirty, reason=dead.value.reason, detail=dead.value.detail, id_text=None)
    told = json.loads(letter)
    assert (told["row"], told["path"], told["byte_offset"]) == ([0, 3], "a.jsonl", len(GOOD) + 2)
    assert told["reason"] == wanted


def test_bom_blank_lines_and_a_missing_last_newline_do_no_harm(make_spec: MakeSpec) -> None:
    """A BOM at the start is no content; blank lines count as lines, not as rows."""
    content = BOM + b'{"a": 1}\r\n\r\n \t\n\n{"a": 2}'
    rows = rows_of(make_spec, content)
    assert [(row.line, row.byte_offset) for row in rows] == [(1, 0), (5, 19)]
    assert [parse_row(row).values for row in rows] == [{"a": 1}, {"a": 2}]
    assert rows_of(make_spec, BOM + b"\n" + b" " * 300) == []


@pytest.mark.parametrize("last", [b"", b"\n", b"\n" + GOOD, b"\n" + b" " * 700 + b"\n" + GOOD])
@pytest.mark.parametrize("length", [199, 200, 201, 256, 500, 1000])
def test_a_long_line_is_a_dead_letter_and_the_next_row_is_found(
    make_spec: MakeSpec, last: bytes, length: int
) -> None:
    """Exactly from one byte too many on; a long blank line is still none."""
    long = b'{"text": "' + b"x" * (length - 12) + b'"}'
    rows = rows_of(make_spec, GOOD + b"\n" + long + last, max_line_bytes=200)
    if length <= 200:
        assert rows[1].line_bytes == long
    else:
        assert rows[1].too_long_bytes == length
        with pytest.raises(RowError) as dead:
            parse_row(rows[1])
        assert dead.value.reason == "line_too_long"
        assert str(length) in dead.value.detail
    assert (rows[1].line, rows[1].byte_offset) == (2, len(GOOD) + 1)
    assert [row.line_bytes for row in rows[2:]] == ([GOOD] if last.endswith(GOOD) else [])


def test_a_text_file_has_a_row_a_line(make_spec: MakeSpec) -> None:
    """As if each were an object with one field, whose text is the line's."""
    rows = rows_of(make_spec, BOM + 'He said "x"\r\n\n\u00e9\\n{"a":1}\n\xff'.encode(), "a.txt")
    texts = [parse_row(row).values for row in rows]
    assert texts == [{"text": 'He said "x"'}, {"text": '\u00e9\\n{"a":1}'}, {"text": "\xff"}]
    assert parse_row(rows[0]).texts == {"text": '"He said \\"x\\""'}
    [bad] = rows_of(make_spec, b"\xff", "a.txt")
    with pytest.raises(RowError) as dead:
        parse_row(bad)
    assert dead.value.reason == "not_unicode"


def _mutated(random_: random.Random) -> bytes:
    seeds = [one[1] for one in DIRT if len(one[1]) < 100] + [b'{"a":[1,2,{"b":null}],"c":-1.5e3}']
    line = bytearray(random_.choice(seeds))
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(line) + 1)
        line[at : at + random_.choice([0, 0, 1, 3])] = random_.choice(
            [
                b'"',
                b"{",
                b"}",
                b"[",
                b",",
                b":",
                b"\\",
                b"\\u12",
                b"1",
                b"e",
                b" ",
                b"\xc3",
                b"-",
                b"",
            ]
        )
    return bytes(line).replace(b"\n", b"")


@pytest.mark.parametrize("num_lines", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_the_parser_never_crashes_and_agrees_with_json_loads(num_lines: int) -> None:
    """Whatever it takes, json.loads takes with the same values; what it refuses has its reason."""
    random_ = random.Random(7)
    for _ in range(num_lines):
        line = _mutated(random_)
        try:
            fields = parse_row(Row(0, 0, 1, "a.jsonl", 9, line))
        except RowError as error:
            if error.reason == "not_json":
                try:
                    loaded = json.loads(line.decode())
                except ValueError:
                    continue
                assert "NaN" in str(loaded).replace("nan", "NaN") or "inf" in str(loaded), line
            continue
        assert fields.values == json.loads(line), line
        assert {name: json.loads(text) for name, text in fields.texts.items()} == fields.values


def test_a_line_of_100_mb_takes_no_100_mb(tmp_path: Path) -> None:
    """Plain, packed and in an array: planned, read past and told, with little memory."""
    program = """
import gzip, sys
from pathlib import Path
from rdu_batch.dataset.planning import plan_of_output
from rdu_batch.dataset.reader import RowReader
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import open_store
folder = Path(sys.argv[1])
def high_water_kib():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
(folder / "in").mkdir()
chunk = b"y" * 2**20
for name, opened, begin, end in (
    ("a.jsonl", open, b"", b"\\n"),
    ("b.jsonl.gz", gzip.open, b"", b"\\n"),
    ("c.json", open, b"[", b","),
):
    with opened(folder / "in" / name, "wb") as file:
        file.write(begin + b'{"a": "')
        for _ in range(100):
            file.write(chunk)
        file.write(b'"}' + end + b'{"a": 1}' + (b"]" if begin else b""))
import zlib, numpy
spec = JobSpec.model_validate(dict(
    version=1, name="t", input=dict(urls=(str(folder / "in" / "*"),)), prompt=dict(field="a"),
    session=dict(kind="fake"), output=dict(url=str(folder / "out"))))
output = open_store(spec.output.url)
before = high_water_kib()
plan = plan_of_output(output, spec, "x")
for row in RowReader(output, plan).read_rows(0, plan.num_rows):
    print(row.path, row.line, row.too_long_bytes, len(row.line_bytes))
print(high_water_kib() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    *rows, grown_kib = done.stdout.splitlines()
    wanted = [
        line
        for name in ("a.jsonl", "b.jsonl.gz", "c.json")
        for line in (f"{name} 1 {100 * 2**20 + 9} 256", f"{name} 2 0 8")
    ]
    assert rows == wanted
    assert int(grown_kib) < 100 * 1024


def test_texts_are_found_only_when_asked_for() -> None:
    """And are the same as they were written."""
    fields = parse_row(Row(0, 0, 1, "p", 9, b'{"id": 1.0e2 , "b": [ 1 ]}'))
    assert isinstance(fields, Fields)
    assert fields.texts == {"id": "1.0e2", "b": "[ 1 ]"}
