"""Every format against its plain lines: whatever the windows, the shards and the cuts."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rdu_batch.dataset.counting import count_here
from rdu_batch.dataset.indexing import Tasks, index_files
from rdu_batch.dataset.line_index import LongestRows
from rdu_batch.dataset.listing import list_inputs
from rdu_batch.dataset.local_counting import local_counting
from rdu_batch.dataset.planning import make_plan, save_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import InputError, OutputMismatch, RowError
from rdu_batch.job.plan import InputFile
from rdu_batch.job.records import parse_row
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import open_store

MakeSpec = Callable[..., JobSpec]
zstandard = pytest.importorskip("zstandard")
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda content: gzip.compress(content, mtime=0),
    "zst": zstandard.ZstdCompressor().compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
VALUES = st.recursive(
    st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def rows_of(make_spec: MakeSpec, name: str, content: bytes, cuts: list[int], **sizes: int) -> list:
    """All rows of one file, read in the ranges between the cuts."""
    root = f"memory://{uuid.uuid4().hex}"
    open_store(f"{root}/in").put_whole(name, content)
    output = open_store(f"{root}/out")
    plan = save_plan(output, make_plan(make_spec([f"{root}/in/*"], output.url), "x", **sizes))
    reader = RowReader(output, plan, **sizes)
    borders = sorted({0, plan.num_rows, *(min(cut, plan.num_rows) for cut in cuts)})
    found = {}
    # Backward first: every range is then read from its own start.
    for first, end in reversed(list(itertools.pairwise(borders))):
        found[first] = list(reader.read_rows(first, end))
    return [row for first in sorted(found) for row in found[first]]


@settings(max_examples=60)
@given(
    lines=st.lists(
        st.sampled_from([b"{}", b"", b" \t", b"ab" * 9, b"x\r", b"\xc2\x85"]), max_size=30
    ),
    packed=st.sampled_from(["", *PACKED]),
    stem=st.sampled_from(["jsonl", "txt"]),
    window_bytes=st.integers(3, 40),
    cuts=st.lists(st.integers(0, 30), max_size=3),
    members=st.integers(1, 3),
)
def test_packed_rows_are_those_of_the_plain_file(
    make_spec: MakeSpec,
    lines: list[bytes],
    packed: str,
    stem: str,
    window_bytes: int,
    cuts: list[int],
    members: int,
) -> None:
    """Lines, offsets and bytes; several streams one after the other are one content."""
    content = b"\n".join(lines)
    step = -(-len(content) // members) or 1
    pieces = [content[at : at + step] for at in range(0, len(content), step)] or [b""]
    name, stored = f"a.{stem}", content
    if packed:
        name, stored = f"{name}.{packed}", b"".join(map(PACKED[packed], pieces))
    got = rows_of(make_spec, name, stored, cuts, window_bytes=window_bytes)
    offsets = [sum(len(line) + 1 for line in lines[:at]) for at in range(len(lines))]
    wanted = [(at + 1, offsets[at], line) for at, line in enumerate(lines) if line.strip(b" \t\r")]
    assert [(row.line, row.byte_offset, row.line_bytes) for row in got] == wanted
    assert [row.ordinal for row in got] == list(range(len(wanted)))


@settings(max_examples=150)
@given(
    elements=st.lists(VALUES, max_size=8),
    indent=st.sampled_from([None, 0, 1]),
    ascii_only=st.booleans(),
    bom=st.booleans(),
    window_bytes=st.integers(3, 60),
    cuts=st.lists(st.integers(0, 8), max_size=2),
)
@example([{"a": '"]}[{,\\'}], None, True, True, 5, [])
def test_elements_of_an_array_are_its_rows(
    make_spec: MakeSpec,
    elements: list,
    indent: int | None,
    ascii_only: bool,
    bom: bool,
    window_bytes: int,
    cuts: list[int],
) -> None:
    """json.loads of the whole document is the oracle."""
    text = json.dumps(elements, indent=indent, ensure_ascii=ascii_only)
    content = (b"\xef\xbb\xbf" if bom else b"") + text.encode("utf-8", "surrogatepass")
    got = rows_of(make_spec, "a.json", content, cuts, window_bytes=window_bytes)
    assert [json.loads(row.line_bytes) for row in got] == elements
    assert [row.line for row in got] == list(range(1, len(elements) + 1))


def test_one_object_is_one_row_and_keeps_its_text(make_spec: MakeSpec) -> None:
    """Only line ends change."""
    [row] = rows_of(make_spec, "a.json", b'{"id": 1.50,\r\n "text": "\\u00e9"}\n', [])
    assert row.line_bytes == b'{"id": 1.50,   "text": "\\u00e9"}'
    assert parse_row(row).texts == {"id": "1.50", "text": '"\\u00e9"'}


def test_a_line_end_in_a_string_of_a_document_is_not_mended(make_spec: MakeSpec) -> None:
    """It is no JSON, and stays none: its row is dead, its neighbours are not."""
    content = b'[{"a":1},{"text":"x\ny"},{"a":2}]'
    rows = rows_of(make_spec, "a.json", content, [])
    assert [parse_row(rows[at]).values for at in (0, 2)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(RowError) as no:
        parse_row(rows[1])
    assert no.value.reason == "not_json"


@pytest.mark.parametrize(
    ("content", "offset", "good"),
    [
        (b'[{"a":1},\n{"a":2}', "content byte 17", 2),
        (b'[{"a":1}]\n{"b":1}', "content byte 10", 1),
        (b"[1,]", "content byte 3", 1),
        (b'{"a":1}}', "content byte 7", 1),
        (b"", "content byte 0", 0),
        (b"7", "content byte 0", 0),
        (b"\xff\xfe[\x00]\x00", "content byte 0", 0),
    ],
)
def test_a_document_that_is_none_is_refused(
    make_spec: MakeSpec, content: bytes, offset: str, good: int
) -> None:
    """With the file, the byte, the good rows before it and what to do; exit 4."""
    with pytest.raises(InputError, match="good rows come before") as no:
        rows_of(make_spec, "a.json", content, [])
    assert f"a.json is damaged at {offset}" in str(no.value)
    assert f"{good} good rows" in str(no.value)
    assert no.value.exit_code == 4


@pytest.mark.parametrize("packed", PACKED)
def test_a_packed_file_that_is_cut_short_is_refused_after_its_good_rows(
    make_spec: MakeSpec, packed: str
) -> None:
    """Never silence: the rest of its rows would be missing."""
    content = b"".join(b'{"n":%d}\n' % number for number in range(300_000))
    stored = PACKED[packed](content)
    with pytest.raises(InputError, match=r"a\.jsonl\.\w+ is damaged at stored byte") as no:
        rows_of(make_spec, f"a.jsonl.{packed}", stored[: len(stored) // 2], [])
    assert "cut short" in str(no.value)
    assert 0 < int(str(no.value).split("; ")[-2].split()[0]) < 300_000
    with pytest.raises(InputError, match="0 good rows"):
        rows_of(make_spec, f"a.jsonl.{packed}", b"hello, this is something else", [])


def test_utf_16_is_one_error_and_not_a_million_dead_letters(make_spec: MakeSpec) -> None:
    """For every format of text."""
    text = '{"a":1}\n'.encode("utf-16")
    for name, content in (("a.jsonl", text), ("a.txt.gz", gzip.compress(text))):
        with pytest.raises(InputError, match="UTF-16"):
            rows_of(make_spec, name, content, [])


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json"])
def test_a_large_decoded_file_is_cut_anew_and_read_from_its_pieces(
    make_spec: MakeSpec, tmp_path: Path, name: str
) -> None:
    """Rows are the same, also where the file is read from its middle; a lost piece costs no row."""
    values = [{"n": number, "text": "y" * (number % 50)} for number in range(400)]
    if name.endswith("gz"):
        content = gzip.compress(b"".join(json.dumps(one).encode() + b"\n" for one in values))
    else:
        content = json.dumps(values).encode()
    (tmp_path / name).write_bytes(content)
    output = open_store(str(tmp_path / "out"))
    [listed] = list_inputs([str(tmp_path / name)])
    tasks = Tasks([listed], 64, output.url, max_decoded_bytes=1000)
    [file] = index_files(tasks, LongestRows())
    assert len(output.list_names("_run/recut/00000")) == -(-len(file.windows) // 8)
    spec = make_spec([str(tmp_path / name)], output.url)
    plan = save_plan(output, make_plan(spec, "x", window_bytes=64))
    reader = RowReader(output, plan, window_bytes=64, max_decoded_bytes=1000)
    for first, end in ((390, 400), (0, 5), (3, 400)):
        got = [json.loads(row.line_bytes) for row in reader.read_rows(first, end)]
        assert got == values[first:end]
    # The pieces are what is read: one that is damaged is told, one that is gone is done without.
    third = sorted(output.list_names("_run/recut/00000"))[3]
    output.put_whole(third, b"damaged")
    with pytest.raises(OutputMismatch, match="is damaged"):
        list(RowReader(output, plan, window_bytes=64, max_decoded_bytes=1000).read_rows(0, 400))
    output.delete(third)
    reader = RowReader(output, plan, window_bytes=64, max_decoded_bytes=1000)
    assert [json.loads(row.line_bytes) for row in reader.read_rows(0, 400)] == values


@given(
    contents=st.lists(
        st.lists(st.sampled_from([b"\n", b"a", b" ", b"bcd" * 5]), max_size=40), max_size=3
    ),
    window_bytes=st.integers(3, 9),
    repeats=st.sampled_from([1, 40]),
)
def test_parts_counted_in_any_order_give_the_same_index(
    contents: list[list[bytes]], window_bytes: int, repeats: int
) -> None:
    """Tasks are pure: done backward they join to what one pass over the file gives."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    store.put_whole("x.jsonl", b"")
    for number, pieces in enumerate(contents):
        store.put_whole(f"{number}.jsonl", b"".join(pieces) * repeats)
    tasks = Tasks(list_inputs([store.url]), window_bytes)

    def backward(todo):
        todo = list(todo)
        return reversed([next(iter(count_here([task]))) for task in reversed(todo)])

    one, other = LongestRows(), LongestRows()
    wanted: list[InputFile] = list(index_files(tasks, one))
    assert list(index_files(tasks, other, backward)) == wanted
    assert one.rows() == other.rows()


@pytest.mark.slow
def test_processes_give_the_index_that_one_process_gives(tmp_path: Path) -> None:
    """Over more bytes than are counted here; byte for byte."""
    line = b'{"text": "%s"}\n' % (b"x" * 100)
    (tmp_path / "a.jsonl").write_bytes(line * 1_300_000)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line * 1000))
    tasks = Tasks(list_inputs([str(tmp_path)]))
    here = [file.to_line() for file in index_files(tasks, LongestRows())]
    there = index_files(tasks, LongestRows(), local_counting(num_processes=2))
    assert [file.to_line() for file in there] == here


@pytest.mark.parametrize("packed", PACKED)
def test_a_packed_file_of_no_bytes_has_no_rows(make_spec: MakeSpec, packed: str) -> None:
    """As a plain one has none; a document of no bytes is none."""
    assert rows_of(make_spec, f"a.jsonl.{packed}", b"", []) == []
    assert rows_of(make_spec, f"a.txt.{packed}", b"", []) == []
    with pytest.raises(InputError, match="the file is empty"):
        rows_of(make_spec, f"a.json.{packed}", b"", [])


def test_all_damaged_files_are_named_at_once(make_spec: MakeSpec, tmp_path: Path) -> None:
    """The first twenty, with how many there are and one word of what to do; good ones are not."""
    for number in range(40):
        name = f"{number:02d}.jsonl.gz"
        (tmp_path / name).write_bytes(b"bad" if number % 2 else gzip.compress(b"{}\n"))
    (tmp_path / "40.jsonl").symlink_to(tmp_path / "nowhere")
    handed_on: list[str] = []
    with pytest.raises(InputError) as no:
        handed_on.extend(
            file.path for file in index_files(Tasks(list_inputs([str(tmp_path)])), LongestRows())
        )
    message = str(no.value)
    assert handed_on == ["00.jsonl.gz"]
    assert message.startswith("21 inputs are damaged or cannot be read; of each, repair it")
    for number in range(40):
        assert (f"/{number:02d}.jsonl.gz is damaged at stored byte 0" in message) == number % 2
    assert message.endswith("\n  and 1 more")
    assert message.count("narrower pattern or several URLs") == 1
    (tmp_path / "00.jsonl.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"^/\S+/01.jsonl.gz is damaged .* several URLs$"):
        list(index_files(Tasks(list_inputs([str(tmp_path / "0[01]*")])), LongestRows()))


def test_files_that_cannot_be_read_at_all_end_the_counting_once_there_are_many(
    tmp_path: Path,
) -> None:
    """A store that refuses every file is not asked for all of a million."""
    for number in range(100):
        (tmp_path / f"{number:02d}.jsonl").symlink_to(tmp_path / "nowhere")
    asked = []

    def count(todo):
        for task in todo:
            for part in task.parts:
                asked.append(part)
                yield from count_here([replace(task, parts=(part,))])

    with pytest.raises(InputError) as no:
        list(index_files(Tasks(list_inputs([str(tmp_path)])), LongestRows(), count))
    assert str(no.value).startswith("20 inputs are damaged or cannot be read")
    assert str(no.value).endswith("\n  files after these were not looked at")
    assert len(asked) == 20


def test_a_large_file_with_a_damaged_part_is_one_bad_file(tmp_path: Path) -> None:
    """Its later parts are passed over; the next file begins anew."""
    line = b'{"a": 1}\n'
    (tmp_path / "a.jsonl").write_bytes("é\n".encode("utf-16") + line * 200)
    (tmp_path / "b.jsonl").write_bytes(line)
    (tmp_path / "c.jsonl.gz").write_bytes(b"x")
    with pytest.raises(InputError) as no:
        list(index_files(Tasks(list_inputs([str(tmp_path)]), 4), LongestRows()))
    assert str(no.value).startswith("2 inputs are damaged")
    assert str(no.value).count("a.jsonl is damaged") == 1
