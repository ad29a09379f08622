"""URLs as text: folders, names, patterns, chains of drivers."""

from __future__ import annotations

import pytest

from rdu_batch.storage.urls import join_url, lies_in, parts_of, split_object, split_pattern


@pytest.mark.parametrize(
    ("url", "folder", "name"),
    [
        ("s3://b/in/a.jsonl", "s3://b/in", "a.jsonl"),
        ("s3://b", "s3://", "b"),
        ("/a.jsonl", "/", "a.jsonl"),
        ("a.jsonl", ".", "a.jsonl"),
        ("in/a.jsonl", "in", "a.jsonl"),
        ("/in/a::b.jsonl", "/in", "a::b.jsonl"),
        ("zip://a.jsonl::s3://b/x.zip", "zip://::s3://b/x.zip", "a.jsonl"),
        ("zip://in/a.jsonl::s3://b/x.zip", "zip://in::s3://b/x.zip", "a.jsonl"),
        ("simplecache::s3://b/in/a.jsonl", "simplecache::s3://b/in", "a.jsonl"),
        (
            "simplecache::zip://in/a.jsonl::s3://b/x.zip",
            "simplecache::zip://in::s3://b/x.zip",
            "a.jsonl",
        ),
    ],
)
def test_an_object_lies_in_a_folder_and_is_joined_to_it_again(
    url: str, folder: str, name: str
) -> None:
    """In a chain the name is in the link that has a path."""
    assert split_object(url) == (folder, name)
    if not folder.startswith("."):
        assert join_url(folder, name) == url


@pytest.mark.parametrize(
    ("url", "folder", "pattern"),
    [
        ("s3://b/in/*.jsonl", "s3://b/in/", "*.jsonl"),
        ("s3://b/*/x/a[0].jsonl", "s3://b/", "*/x/a[0].jsonl"),
        ("*.jsonl", ".", "*.jsonl"),
        ("zip://**/*.jsonl::s3://b/x.zip", "zip://::s3://b/x.zip", "**/*.jsonl"),
        ("simplecache::s3://b/in/*", "simplecache::s3://b/in/", "*"),
    ],
)
def test_a_pattern_begins_below_the_last_folder_without_a_wildcard(
    url: str, folder: str, pattern: str
) -> None:
    """The rest of a chain stays with the folder."""
    assert split_pattern(url) == (folder, pattern)


def test_what_lies_in_a_folder() -> None:
    """By whole names, and within one chain."""
    assert lies_in("s3://b/in/a", "s3://b/in/")
    assert lies_in("s3://b/in", "s3://b/in")
    assert lies_in("s3://b/in", "s3://")
    assert not lies_in("s3://b/inner", "s3://b/in")
    assert not lies_in("s3://b/in", "s3://b/in/a")
    assert not lies_in("zip://in/a::s3://b/x.zip", "zip://in::s3://b/y.zip")
    assert not lies_in("simplecache::s3://b/in/a", "s3://b/in")


def test_a_chain_is_one_by_its_marks() -> None:
    """A local name with two colons is none."""
    assert parts_of("simplecache::s3://b").is_chain
    assert parts_of("zip://a::/local/x.zip").is_chain
    assert not parts_of("/a::b").is_chain
