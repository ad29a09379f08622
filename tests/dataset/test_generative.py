"""Prompts as the tutorial's ``GenerativeDataset`` takes them, and as this program does."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from rdu_batch.dataset.generative import read_examples, read_like_tutorial
from rdu_batch.errors import InputError
from rdu_batch.storage.store import open_store


def write(path: Path, *prompts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": one, "more": 1}) + "\n" for one in prompts))


def prompts(data_dir: object, limit: int = 20) -> list[str]:
    return [example.prompt for example in read_examples(str(data_dir), limit)]


def test_a_folder_is_read_in_sorted_order_whatever_its_depth(tmp_path: Path) -> None:
    """As a job reads it; other files are no prompts."""
    write(tmp_path / "b.jsonl", "third")
    write(tmp_path / "a" / "z.jsonl", "first", "second")
    write(tmp_path / "notes.json", "none")
    found = read_examples(str(tmp_path), 20)
    assert [example.prompt for example in found] == ["first", "second", "third"]
    assert found[1].place == f"{tmp_path / 'a' / 'z.jsonl'}:2"


def test_no_more_is_read_than_is_asked_for(tmp_path: Path) -> None:
    """What is wrong behind the last prompt does not matter; blank lines are no rows."""
    path = tmp_path / "rows.jsonl"
    path.write_text('\ufeff{"prompt": "one"}\n\n{"prompt": " two "}\r\nno JSON\n')
    assert prompts(path, 2) == ["one", " two "]
    assert prompts(path, 0) == []
    with pytest.raises(InputError, match=r"rows\.jsonl:4: not JSON .*: no JSON"):
        prompts(path, 3)


def test_lines_are_whole_wherever_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is read in pieces; the last line needs no end."""
    monkeypatch.setattr("rdu_batch.dataset.generative._PIECE_BYTES", 7)
    wanted = ["Grüße", "x" * 40, "", "你好"]
    write(tmp_path / "rows.jsonl", *wanted)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert prompts(path) == wanted


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ('{"prompt": "one"}', ["one"]),
        (' [{"prompt": "one"},\n {"prompt": "two"}]\n', ["one", "two"]),
        ("[]", []),
    ],
)
def test_json_is_taken_as_a_file_of_any_store_and_as_itself(
    tmp_path: Path, document: str, wanted: list[str]
) -> None:
    """One object, or an array of them."""
    url = f"memory://{uuid.uuid4().hex}"
    for folder in (str(tmp_path), url):
        open_store(folder).put_whole("rows.json", document.encode())
        assert prompts(f"{folder}/rows.json") == wanted
    assert prompts(document) == wanted


def test_an_inline_array_ends_where_the_limit_is() -> None:
    """The entry is named where one is wrong."""
    text = '[{"prompt": "one"}, {"prompt": 2}]'
    assert prompts(text, 1) == ["one"]
    with pytest.raises(InputError, match=r'^--data_dir, entry 2: "prompt" is 2; wanted a text'):
        prompts(text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "one"}', "no key \"prompt\"; the keys are 'text'"),
        ("{}", 'no key "prompt"; the keys are none'),
        ('["prompt"]', 'found ["prompt"]; wanted an object'),
        ('"prompt"', 'found "prompt"; wanted an object'),
        ("7", "found 7; wanted an object"),
        ('{"prompt": null}', '"prompt" is null; wanted a text'),
        ('{"prompt": ', "not JSON"),
    ],
)
def test_a_row_that_has_no_prompt_is_named_by_file_and_line(
    tmp_path: Path, line: str, said: str
) -> None:
    """Whatever is there instead."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "one"}\n' + line + "\n")
    with pytest.raises(InputError) as caught:
        prompts(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert said in str(caught.value)


def test_bytes_that_are_no_text_and_places_that_are_not_there_are_input_errors(
    tmp_path: Path,
) -> None:
    """Exit 4, with the place."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:1: byte 13 is not UTF-8"):
        prompts(path)
    for missing in ("none.json", "none.jsonl", "none"):
        with pytest.raises(InputError, match=missing):
            prompts(tmp_path / missing)


def test_the_tutorials_order_is_that_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders as ``os.walk`` gives them, and a folder's files before those below it."""
    write(tmp_path / "b.jsonl", "b")
    write(tmp_path / "a.jsonl", "a1", "a2")
    write(tmp_path / "deep" / "c.jsonl", "c")
    walked = [
        (str(tmp_path), ["deep"], ["b.jsonl", "other.txt", "a.jsonl"]),
        (str(tmp_path / "deep"), [], ["c.jsonl"]),
    ]
    monkeypatch.setattr("os.walk", lambda _folder: iter(walked))
    found = [example.prompt for example in read_like_tutorial(str(tmp_path))]
    assert found == ["b", "a1", "a2", "c"]


def test_the_tutorial_takes_an_empty_folder_and_inline_json(tmp_path: Path) -> None:
    """No prompts, without an error; one prompt."""
    assert read_like_tutorial(str(tmp_path)) == []
    (example,) = read_like_tutorial('{"prompt": "one", "completion": "two"}')
    assert example.prompt == "one"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "rows.json",
            '{"prompt": "a"}',
            "Provided file '{path}' must have .jsonl ext and be in the jsonl format",
        ),
        ("none", None, "Provided value '{path}' is neither a .jsonl file nor a json example"),
        ("a.jsonl", '{"text": 1}\n', "JSON key \"prompt\" not found in example: {{'text': 1}}"),
        ("a.jsonl", "[1]\n", 'JSON key "prompt" not found in example: [1]'),
        ("a.jsonl", '{"prompt": "a"}\n\n', "Expecting value: line 2 column 1 (char 1)"),
        ("a.jsonl", "7\n", "argument of type 'int' is not iterable"),
    ],
)
def test_the_tutorials_refusals_have_its_own_words(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    """The whole text; also where it does not help, as with the line of a blank line."""
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_like_tutorial(str(path))
    assert str(caught.value) == said.format(path=path)


@pytest.mark.parametrize("line", ['"a prompt"', '{"prompt": 7}'])
def test_what_the_tutorial_meets_later_is_refused_at_once(tmp_path: Path, line: str) -> None:
    """It passes the tutorial's check, and breaks its run; here it is named."""
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl:1"):
        read_like_tutorial(str(path))


def test_what_parses_as_json_is_no_place_for_the_tutorial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder called ``123`` cannot be named so; ours takes it as the folder it is."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "123" / "a.jsonl", "one")
    with pytest.raises(InputError, match="argument of type 'int' is not iterable"):
        read_like_tutorial("123")
    assert prompts("123") == ["one"]


def test_files_with_another_name_are_refused_in_words_of_this_command(tmp_path: Path) -> None:
    """Which has no job file."""
    write(tmp_path / "a.txt", "one")
    with pytest.raises(InputError, match=r"a\.txt.*name \.jsonl files") as caught:
        prompts(tmp_path / "a.txt")
    assert "input.urls" not in str(caught.value)
    write(tmp_path / "a.json", "one", "two")
    with pytest.raises(InputError, match=r"name the file \.jsonl"):
        prompts(tmp_path / "a.json")


def test_a_note_names_the_line_that_the_tutorial_s_text_does_not(tmp_path: Path) -> None:
    """The text stays as it is."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a"}\n{"text": 1}\n')
    with pytest.raises(InputError) as caught:
        read_like_tutorial(str(path))
    assert caught.value.__notes__ == [f"this is in {path}:2"]
