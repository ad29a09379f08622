"""Which files an input URL means, and in which order."""

from __future__ import annotations

import logging
import sys
import uuid
from pathlib import Path

import pytest

from rdu_batch.dataset.listing import list_inputs
from rdu_batch.errors import InputError
from rdu_batch.storage.store import Store, open_store


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder with files at several depths."""
    url = str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    store = open_store(url)
    for name in (
        "b.jsonl",
        "a.jsonl",
        "notes.md",
        "README.txt",
        "manifest.json",
        "deep/c.txt.gz",
        "deep/c.jsonl",
        "deep/er/d.jsonl",
        "_run/index/0.jsonl",
        ".hidden.jsonl",
    ):
        store.put_whole(name, b"{}\n")
    return store


def paths(*urls: str) -> list[str]:
    """The listed files' paths."""
    return [file.path for file in list_inputs(urls)]


def test_a_file_is_itself(folder: Store) -> None:
    """Its path is its name; the URL opens it; the size is pinned."""
    [file] = list_inputs([folder.join("deep/c.jsonl")])
    assert (file.path, file.url, file.size_bytes) == ("c.jsonl", folder.join("deep/c.jsonl"), 3)


def test_a_folder_is_its_jsonl_files_at_any_depth(folder: Store) -> None:
    """Sorted by path; other suffixes and marked names are left out; a slash changes nothing."""
    wanted = ["a.jsonl", "b.jsonl", "deep/c.jsonl", "deep/er/d.jsonl"]
    assert paths(folder.url) == wanted
    assert paths(folder.url + "/") == wanted


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("[b-z].jsonl", ["b.jsonl"]),
        ("?.jsonl", ["a.jsonl", "b.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "deep/c.jsonl", "deep/er/d.jsonl"]),
        ("deep/*.jsonl", ["c.jsonl"]),
        ("d*/*.jsonl", ["deep/c.jsonl"]),
        ("*/er/*.jsonl", ["deep/er/d.jsonl"]),
        ("deep/**/d.jsonl", ["er/d.jsonl"]),
        ("**/er/*.jsonl", ["deep/er/d.jsonl"]),
        ("_run/*/*.jsonl", ["index/0.jsonl"]),
        ("_r*/**/*.jsonl", ["_run/index/0.jsonl"]),
        (".h*.jsonl", [".hidden.jsonl"]),
    ],
)
def test_a_pattern_matches_part_by_part(folder: Store, pattern: str, wanted: list[str]) -> None:
    """Paths are relative to what comes before the first wildcard; a star stays in its folder."""
    assert paths(folder.join(pattern)) == wanted


def test_the_order_of_urls_is_kept_and_paths_sort_within_each(folder: Store) -> None:
    """The user's order decides first."""
    assert paths(folder.join("deep/c.jsonl"), folder.join("*.jsonl")) == [
        "c.jsonl",
        "a.jsonl",
        "b.jsonl",
    ]


def test_what_a_pattern_leaves_out_is_noted(
    folder: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A marked file that the pattern would match is named in the log."""
    with caplog.at_level(logging.WARNING):
        paths(folder.join("*.jsonl"))
    assert "left out 1 file whose path" in caplog.text
    assert ".hidden.jsonl" in caplog.text


def test_what_a_folder_leaves_out_is_noted_by_kind(
    folder: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A .csv or a .json beside the rows must not vanish without a word."""
    for name in ("x.csv", "y.CSV", "deep/z.csv.gz", "noend", "_run/plan.json"):
        folder.put_whole(name, b"1")
    with caplog.at_level(logging.WARNING):
        assert len(paths(folder.url)) == 4
    kinds = "(.csv 2, .csv.gz 1, .json 1, .md 1, .txt 1, others 2)"
    assert f"left out 8 files of other kinds {kinds}" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        paths(folder.join("deep/er"))
    assert caplog.text == ""


def test_the_same_file_twice_is_refused_with_both_urls(folder: Store) -> None:
    """Once by its name, once by a pattern."""
    with pytest.raises(InputError, match=r"a\.jsonl is an input twice: by .*a\.jsonl and by .*\*"):
        list_inputs([folder.join("a.jsonl"), folder.join("*.jsonl")])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.jsonl", "there is no file at {}, and no folder with files; correct the URL"),
        ("none/", "there is no file at {}, and no folder"),
        ("none/*.jsonl", "no file matches {}, of 0 files under "),
        ("*.bz2", "no file matches {}, of 6 files under "),
        ("deep/er/x*", "no file matches {}, of 1 file under "),
        ("deep/er/x*", "; * stays within one folder, ** stands for any folders (names that"),
        ("*/*", "; it matches folders, such as deep/er: go on with /*.jsonl"),
        ("d?ep*/er", "; it matches folders, such as deep/er: go on with /*.jsonl"),
    ],
)
def test_a_url_that_means_nothing_is_refused_by_name(folder: Store, name: str, said: str) -> None:
    """Silence would run a smaller job than wanted."""
    for other in ("deep/c.txt.gz", "deep/c.jsonl"):
        folder.delete(other)
    with pytest.raises(InputError) as caught:
        list_inputs([folder.join("a.jsonl"), folder.join(name)])
    assert said.format(folder.join(name)) in str(caught.value)


@pytest.mark.parametrize("url", ["notes.md", "*", "x.tar.gz", "*.gz", "gz", ".jsonl.rar"])
def test_a_suffix_that_is_not_read_is_refused(folder: Store, url: str) -> None:
    """Where it is asked for by name, or by a pattern. The message says which can be read."""
    for name in ("notes.md", "x.tar.gz", "gz", ".jsonl.rar"):
        folder.put_whole(name, b"x")
    with pytest.raises(
        InputError, match=r"does not end as a format that is read \(\.jsonl \(or "
    ) as no:
        list_inputs([folder.join(url)])
    assert "input.urls" not in str(no.value)


def test_packed_rows_and_tables_of_a_folder_are_taken(folder: Store) -> None:
    """Half of a corpus must not go missing because it is packed; a README is no row of it."""
    names = ["x.jsonl.zst", "x.jsonl.gz", "x.jsonl.bz2", "x.jsonl.xz", "x.parquet"]
    by_name = ["x.json", "x.json.gz", "x.txt", "x.txt.xz"]
    for name in (*names, *by_name, "x.csv", "x.gz", "x.md"):
        folder.put_whole(f"new/{name}", b"1")
    found = list_inputs([folder.join("new")])
    assert [file.path for file in found] == sorted(names)
    assert [file.format for file in found] == [name[2:] for name in sorted(names)]
    urls = [folder.join(f"new/{pattern}") for pattern in ("*.json", "*.json.gz", "*.txt*")]
    assert [file.path for file in list_inputs(urls)] == by_name


def test_a_folder_of_texts_alone_says_how_to_name_them(folder: Store) -> None:
    """They are no input by themselves."""
    folder.put_whole("texts/a.txt", b"1")
    with pytest.raises(
        InputError, match=r"holds 1 other file \(\.txt 1\); of a folder, \.jsonl .* pattern of"
    ):
        list_inputs([folder.join("texts")])


def test_a_file_whose_name_has_wildcards_is_found_by_its_name(folder: Store) -> None:
    """What exists under the very name is meant."""
    folder.put_whole("a[1].jsonl", b"{}\n")
    assert paths(folder.join("a[1].jsonl")) == ["a[1].jsonl"]


def test_relative_urls_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers have other current folders."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for url in ("in", "in/a.jsonl", "in/*.jsonl", "*/a.jsonl", "./in/"):
        assert [file.url for file in list_inputs([url])] == [str(tmp_path / "in" / "a.jsonl")]


def test_a_dead_link_among_the_inputs_is_listed(tmp_path: Path) -> None:
    """It is refused when it is indexed, rather than left out here."""
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "nowhere")
    assert paths(str(tmp_path)) == ["a.jsonl", "b.jsonl"]


def test_an_input_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that cannot be read ends with exit 4, in the store's own words."""
    for module in ("webdav4", "webdav4.client", "webdav4.fsspec"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"rdu_batch\[webdav\]"):
        list_inputs(["webdav://127.0.0.1:9/*.jsonl"])
