"""The window index and the reader against a plain split of the whole file."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from rdu_batch.dataset.indexing import index_file
from rdu_batch.dataset.line_index import LineIndexer, LongestRows
from rdu_batch.dataset.listing import list_inputs
from rdu_batch.dataset.planning import make_plan, save_plan
from rdu_batch.dataset.range_counter import count_window, window_digest
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import InputError
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import open_store

BOM = b"\xef\xbb\xbf"
# Pieces that meet at window borders in every way; "word" makes lines longer than several windows.
PIECES = [
    b"\n",
    b"\n\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\r",
    b"\x00",
    BOM,
    b"{}",
    b"\x0b",
    b"\xc2\x85",
    b"word" * 9,
]
contents = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=30).map(lambda pieces: BOM + b"".join(pieces)),
    st.binary(max_size=200),
)
window_sizes = st.integers(min_value=3, max_value=40)


@dataclass(frozen=True)
class NaiveLine:
    """A line as a split of the whole content gives it."""

    number: int
    offset: int
    content: bytes
    is_row: bool


def naive_lines(content: bytes) -> list[NaiveLine]:
    """Split on LF in one go; the piece after a last LF is no line."""
    pieces = content.split(b"\n")
    if pieces[-1] == b"":
        pieces.pop()
    lines = []
    offset = 0
    for number, piece in enumerate(pieces, 1):
        text = piece[3:] if offset == 0 and piece.startswith(BOM) else piece
        lines.append(NaiveLine(number, offset, piece, bool(text.replace(b"\r", b"").strip(b" \t"))))
        offset += len(piece) + 1
    return lines


def windows_of(content: bytes, window_bytes: int) -> Iterator[bytes]:
    for start in range(0, len(content), window_bytes):
        yield content[start : start + window_bytes]


@given(content=contents, window_bytes=window_sizes)
@example(content=b"", window_bytes=3)
@example(content=BOM, window_bytes=3)
@example(content=BOM + b"\n" + BOM, window_bytes=3)
@example(content=b"\n" * 9, window_bytes=3)
@example(content=b" " * 20 + b"x", window_bytes=3)
@example(content=b"a\n \r\n\tb\n", window_bytes=4)
@example(content=b"abc\n", window_bytes=4)
def test_the_index_is_that_of_a_plain_split(content: bytes, window_bytes: int) -> None:
    """Every window says how many lines and rows begin in it, and where the first does."""
    indexer = LineIndexer(0, "x", LongestRows())
    for window in windows_of(content, window_bytes):
        indexer.add_window(window)
    windows = indexer.finish()
    lines = naive_lines(content)
    assert indexer.num_lines == len(lines)
    assert indexer.num_rows == sum(line.is_row for line in lines)
    assert len(windows) == -(-len(content) // window_bytes)
    for number, window in enumerate(windows):
        begin = number * window_bytes
        own = [line for line in lines if begin <= line.offset < begin + window_bytes]
        assert window.num_lines == len(own)
        assert window.num_rows == sum(line.is_row for line in own)
        assert window.first_line_offset == (own[0].offset if own else -1)
        digest = xxhash.xxh3_64(content[begin : begin + window_bytes]).hexdigest()
        assert digest == window.digest


@given(
    files=st.lists(contents, max_size=3),
    window_bytes=window_sizes,
    limit=st.one_of(st.none(), st.integers(min_value=1, max_value=12)),
)
@example(files=[b"aa\n\nbbbb\nccc\n" * 3], window_bytes=40, limit=4)
def test_the_longest_rows_are_those_of_a_sort(
    files: list[bytes], window_bytes: int, limit: int | None
) -> None:
    """The five longest rows, the earlier one first among equals, none beyond the limit."""
    longest = LongestRows()
    left = limit
    rows = []
    for index, content in enumerate(files):
        indexer = LineIndexer(index, f"{index}", longest, left)
        for window in windows_of(content, window_bytes):
            indexer.add_window(window)
        indexer.finish()
        rows += [(index, line) for line in naive_lines(content) if line.is_row]
        left = None if left is None else max(0, left - indexer.num_rows)
    wanted = sorted(
        ((len(line.content), index, line.number) for index, line in rows[:limit]),
        key=lambda row: (-row[0], row[1], row[2]),
    )[:5]
    assert [(row.num_bytes, row.file_index, row.line) for row in longest.rows()] == wanted
    assert all(row.path == str(row.file_index) for row in longest.rows())


@given(content=contents)
def test_a_window_is_counted_the_same_wherever_it_lies(content: bytes) -> None:
    """The count depends on the bytes alone; only a BOM asks whether the window is the first."""
    first, later = count_window(content, is_first=True), count_window(content, is_first=False)
    if not content.startswith(BOM):
        assert first == later
    assert later.num_newlines == content.count(b"\n")
    assert content[: later.head_end].count(b"\n") == min(1, later.num_newlines)
    assert b"\n" not in content[later.tail_start :]


@given(
    files=st.lists(contents, min_size=1, max_size=4),
    window_bytes=window_sizes,
    cuts=st.lists(st.integers(min_value=0, max_value=200), max_size=4),
    limit=st.one_of(st.none(), st.integers(min_value=1, max_value=50)),
)
@example(files=[b"", b"\n", b"x"], window_bytes=3, cuts=[], limit=None)
@example(files=[b"a\n" * 40, BOM + b"b\n"], window_bytes=5, cuts=[3, 39, 40], limit=41)
def test_rows_read_back_are_those_of_a_plain_split(
    make_spec: Callable[..., JobSpec],
    files: list[bytes],
    window_bytes: int,
    cuts: list[int],
    limit: int | None,
) -> None:
    """Read in any ranges and in any order of ranges, every row comes once, with its place."""
    root = f"memory://{uuid.uuid4().hex}"
    inputs, output = open_store(f"{root}/in"), open_store(f"{root}/out")
    for index, content in enumerate(files):
        inputs.put_whole(f"{index}.jsonl", content)
    spec = make_spec([f"{root}/in"], output.url, input={"limit": limit})
    plan = save_plan(output, make_plan(spec, "sha256:0", window_bytes=window_bytes))
    rows = [
        (index, line)
        for index, content in enumerate(files)
        for line in naive_lines(content)
        if line.is_row
    ][:limit]
    assert plan.num_rows == len(rows)
    reader = RowReader(output, plan, window_bytes=window_bytes)
    borders = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    ranges = list(itertools.pairwise(borders))
    # Backward, where nothing is left of the range before, then forward and with gaps.
    for first, end in [*reversed(ranges), *ranges, *ranges[::2]]:
        got = list(reader.read_rows(first, end))
        assert [row.ordinal for row in got] == list(range(first, end))
        for row, (index, line) in zip(got, rows[first:end], strict=True):
            assert (row.file_index, row.path) == (index, f"{index}.jsonl")
            assert (row.line, row.byte_offset) == (line.number, line.offset)
            assert row.line_bytes == line.content
    open_files = list(reader.input_files())
    assert [file.num_lines for file in open_files] == [
        len(naive_lines(content)) for content in files[: len(open_files)]
    ]
    if limit is None:
        assert len(open_files) == len(files)


def test_the_same_file_gives_the_same_index_at_full_window_size(tmp_path: Path) -> None:
    """At the format's own window size: several reads, a long line, CRLF, blanks, no last LF."""
    content = BOM + b"".join(
        [b'{"text": "%s"}\r\n' % (b"x" * (number % 3000)) for number in range(9000)]
        + [b"\n", b'{"text": "' + b"y" * 3_500_000 + b'"}\n', b" \t\r\n", b'{"text": "end"}']
    )
    (tmp_path / "a.jsonl").write_bytes(content)
    [listed] = list_inputs([str(tmp_path / "a.jsonl")])
    longest = LongestRows()
    indexed = index_file(listed, 0, longest)
    lines = naive_lines(content)
    assert indexed.num_lines == len(lines) == 9003 + 1
    assert indexed.num_rows == 9002
    digests = [
        xxhash.xxh3_64(content[start : start + 2**20]).hexdigest()
        for start in range(0, len(content), 2**20)
    ]
    assert indexed.windows_sha256 == hashlib.sha256("".join(digests).encode()).hexdigest()
    assert (indexed.format, indexed.logical_bytes) == ("jsonl", len(content))
    assert indexed.etag is None
    assert sum(window.num_rows for window in indexed.windows) == 9002
    assert len(indexed.windows) == -(-len(content) // 2**20)
    assert (longest.rows()[0].line, longest.rows()[0].num_bytes) == (9002, 3_500_012)


@pytest.mark.parametrize("window_bytes", [0, 1, 2])
def test_a_window_too_small_for_a_bom_is_refused(tmp_path: Path, window_bytes: int) -> None:
    """A BOM must lie in one window."""
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    [listed] = list_inputs([str(tmp_path / "a.jsonl")])
    with pytest.raises(ValueError, match="at least 3"):
        index_file(listed, 0, LongestRows(), window_bytes=window_bytes)


def test_a_file_that_changes_between_listing_and_indexing_is_refused(tmp_path: Path) -> None:
    """Grown or gone: the plan would pin what nobody listed."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n" * 10)
    [listed] = list_inputs([str(path)])
    path.write_bytes(b"{}\n" * 11)
    with pytest.raises(InputError, match="changed while it was indexed"):
        index_file(listed, 0, LongestRows())
    path.unlink()
    with pytest.raises(InputError, match="is not there"):
        index_file(listed, 0, LongestRows())


def test_a_line_of_200_mb_is_indexed_in_little_memory(tmp_path: Path) -> None:
    """The line is never held: the process grows by a few reads, not by the line."""
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:  # sparse: reads as NUL bytes, takes no disk
        file.write(b"{}\n")
        file.truncate(200_000_003)
    program = f"""
from pathlib import Path
from rdu_batch.dataset.indexing import index_file
from rdu_batch.dataset.line_index import LongestRows
from rdu_batch.dataset.listing import list_inputs
def high_water_kib():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
[listed] = list_inputs([{str(path)!r}])
before = high_water_kib()
longest = LongestRows()
indexed = index_file(listed, 0, longest)
print(indexed.num_rows, longest.rows()[0].num_bytes, high_water_kib() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    num_rows, num_bytes, grown_kib = map(int, done.stdout.split())
    assert (num_rows, num_bytes) == (2, 200_000_000)
    assert grown_kib < 96 * 1024


def test_digests_of_windows_are_the_same_everywhere() -> None:
    """Those of the algorithm's own tables: an index outlives versions of libraries."""
    assert window_digest(b"") == "2d06800538d394c2"
    assert window_digest(memoryview(b"xxhash and more")[:6]) == window_digest(b"xxhash")
