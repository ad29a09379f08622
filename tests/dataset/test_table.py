"""Parquet: every record a row, and what becomes of each type."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rdu_batch.dataset.planning import make_plan, save_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import InputError, RowError
from rdu_batch.job.records import Row, parse_row
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import open_store

MakeSpec = Callable[..., JobSpec]
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def reader_of(make_spec: MakeSpec, folder: Path, **sizes: Any) -> tuple[RowReader, int]:
    """A reader of the planned folder, and how many rows there are."""
    output = open_store(str(folder.parent / "out"))
    plan = save_plan(output, make_plan(make_spec([str(folder)], output.url), "x"))
    return RowReader(output, plan, **sizes), plan.num_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where inputs go."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def rows_of(make_spec: MakeSpec, folder: Path, **sizes: Any) -> list[Row]:
    """All rows of a folder."""
    reader, num_rows = reader_of(make_spec, folder, **sizes)
    return list(reader.read_rows(0, num_rows))


def test_every_type_has_its_json(make_spec: MakeSpec, folder: Path) -> None:
    """Integers exactly, numbers that JSON would round as text, nested values nested."""
    day = dt.datetime(2026, 11, 22, 1, 2, 3, 400, tzinfo=dt.UTC)
    columns = {
        "big": pyarrow.array([2**63 - 1]),
        "unsigned": pyarrow.array([2**64 - 1], pyarrow.uint64()),
        "price": pyarrow.array([Decimal("1.10")]),
        "at": pyarrow.array([day], pyarrow.timestamp("us", "UTC")),
        "day": pyarrow.array([day.date()]),
        "raw": pyarrow.array([b"\x00\xff"]),
        "nothing": pyarrow.array([None], pyarrow.string()),
        "nested": pyarrow.array([{"a": [1, None], "b": {"c": "\u00e9\u2028"}}]),
        "flag": pyarrow.array([True]),
    }
    parquet.write_table(pyarrow.table(columns), folder / "a.parquet")
    [row] = rows_of(make_spec, folder)
    assert list(parse_row(row).values.items()) == [
        ("big", 2**63 - 1),
        ("unsigned", 2**64 - 1),
        ("price", "1.10"),
        ("at", "2026-11-22T01:02:03.000400+00:00"),
        ("day", "2026-11-22"),
        ("raw", base64.b64encode(b"\x00\xff").decode()),
        ("nothing", None),
        ("nested", {"a": [1, None], "b": {"c": "\u00e9\u2028"}}),
        ("flag", True),
    ]
    assert row.line_bytes.startswith(b'{"big":9223372036854775807,"unsigned":18446744073709551615,')


def test_ranges_across_row_groups_are_the_records_in_order(
    make_spec: MakeSpec, folder: Path
) -> None:
    """Backward, forward and from the middle of a group; beside lines of another format."""
    values = [{"n": number} for number in range(5000)]
    table = pyarrow.Table.from_pylist(values)
    parquet.write_table(table, folder / "a.parquet", row_group_size=1100)
    (folder / "b.jsonl").write_bytes(b'{"n": 5000}\n')
    parquet.write_table(table.slice(0, 0), folder / "c.parquet")
    reader, num_rows = reader_of(make_spec, folder)
    assert num_rows == 5001
    for first, end in ((4000, 5001), (0, 10), (10, 3000), (1100, 1101), (2999, 3001)):
        got = list(reader.read_rows(first, end))
        assert [json.loads(row.line_bytes)["n"] for row in got] == list(range(first, end))
        assert [row.ordinal for row in got] == list(range(first, end))
    assert (got[0].line, got[0].byte_offset, got[0].path) == (3000, 2999, "a.parquet")


def test_dirty_records_are_dead_letters_and_their_neighbours_are_not(
    make_spec: MakeSpec, folder: Path
) -> None:
    """NaN, bytes that are no UTF-8, a name given twice, a value that is too long."""
    numbers = pyarrow.table({"x": pyarrow.array([1.5, float("nan"), float("inf"), None])})
    parquet.write_table(numbers, folder / "a.parquet")
    raw = pyarrow.array([b"good", b"\xff\xfe"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"t": raw}), folder / "b.parquet")
    twice = pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["t", "t"])
    parquet.write_table(twice, folder / "c.parquet")
    parquet.write_table(pyarrow.table({"t": ["y" * 5000]}), folder / "d.parquet")
    found = []
    for row in rows_of(make_spec, folder, max_line_bytes=1000):
        try:
            parse_row(row)
            found.append(None)
        except RowError as error:
            found.append(str(error.reason))
    dead = [None, "not_json", "not_json", None, None, "not_unicode", "duplicate_key"]
    assert found == [*dead, "line_too_long"]


def test_a_file_that_is_no_parquet_or_cut_short_is_refused(
    make_spec: MakeSpec, folder: Path
) -> None:
    """At planning, by name."""
    for content in (b"", b"PAR1 and nothing else", b"x" * 100):
        (folder / "a.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.parquet is damaged at stored byte"):
            rows_of(make_spec, folder)


def test_a_table_that_changed_is_refused(make_spec: MakeSpec, folder: Path) -> None:
    """Same size, other bytes: the row group's own pin tells."""
    path = folder / "a.parquet"
    table = pyarrow.table({"t": ["a" * 50, "b" * 50]})
    parquet.write_table(table, path, compression="none", use_dictionary=False)
    reader, _ = reader_of(make_spec, folder)
    path.write_bytes(path.read_bytes().replace(b"aaaaa", b"aaaac", 1))
    with pytest.raises(InputError, match="changed since the plan was made"):
        list(reader.read_rows(0, 2))
