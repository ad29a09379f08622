"""Prompts as the tutorial's ``GenerativeDataset`` takes them: JSON lines, a folder of them, JSON.

Two ways to read the same places. Ours: a folder in sorted order, a ``.json`` file too (one object,
or an array of them), errors with file and line, no more read than is asked for. The tutorial's
(``read_like_tutorial``): its order, its refusals and the texts of its errors.
Promises: a prompt is text, exactly as written. Does not: render, tokenize, or feed jobs, whose rows
are pinned and indexed (``planning.py``).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.dataset.input_store import reading_input
from rdu_batch.dataset.listing import list_inputs
from rdu_batch.errors import InputError, ObjectMissing
from rdu_batch.storage.store import open_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rdu_batch.dataset.listing import ListedFile

PROMPT_KEY: Final = "prompt"
_INLINE: Final = "--data_dir"
_PIECE_BYTES: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
#: Of a value in a message.
_MOST_QUOTED_CHARS: Final = 200


@dataclass(frozen=True)
class Example:
    """One prompt."""

    #: Where it stands, for messages: ``rows.jsonl:12``.
    place: str
    prompt: str


def is_inline_json(data_dir: str) -> bool:
    """Whether it is JSON itself, not the name of a place: it begins as an object or an array."""
    return data_dir.lstrip().startswith(("{", "["))


def read_examples(data_dir: str, limit: int) -> list[Example]:
    """The first prompts of a place; what follows them is not read.

    Args:
        data_dir: a .jsonl or .json file, a folder of .jsonl files (of any depth, sorted by path),
            a pattern, of any fsspec store; or one JSON object or array of objects, as text.
        limit: most prompts to read.

    Raises:
        InputError: nothing is there, or a row is no JSON object with a text under ``prompt``; with
            its file and line. Ends the command (exit 4).
    """
    examples: list[Example] = []
    if limit:
        for example in _examples(data_dir):
            examples.append(example)
            if len(examples) == limit:
                break
    return examples


def _examples(data_dir: str) -> Iterator[Example]:
    if is_inline_json(data_dir):
        yield from _of_document(data_dir, _INLINE)
    elif data_dir.endswith(".json"):
        store, name = open_object(data_dir)
        try:
            with reading_input(data_dir):
                content = store.read(name)
        except ObjectMissing as error:
            raise InputError(f"{data_dir}: there is no such file") from error
        text = _text(content, data_dir)
        if _is_lines(text):
            raise InputError(
                f"{data_dir}: it holds one JSON object a line, wanted one object or an array of "
                "them; name the file .jsonl"
            )
        yield from _of_document(text, data_dir)
    else:
        for file in _listed(data_dir):
            yield from _of_lines(file.url, file.size_bytes)


def _listed(data_dir: str) -> list[ListedFile]:
    """The .jsonl files that a place means; a job would read files of other formats, too."""
    listed = list_inputs([data_dir])
    files = [file for file in listed if file.format == "jsonl"]
    if not files:
        raise InputError(
            f"{data_dir}: found {listed[0].path}, wanted .jsonl; name .jsonl files, each line an "
            f'object such as {{"{PROMPT_KEY}": "text"}}'
        )
    return files


def _is_lines(text: str) -> bool:
    """Whether its first two lines are an object each, which no one document is."""
    lines = [line for line in text.splitlines() if line.strip()][:2]
    try:
        return len(lines) == 2 and all(isinstance(json.loads(line), dict) for line in lines)
    except ValueError:
        return False


def _of_document(text: str, place: str) -> Iterator[Example]:
    """One object, or an array of them."""
    document = _parsed(text, place)
    if isinstance(document, list):
        for index, entry in enumerate(document, start=1):
            yield _example(entry, f"{place}, entry {index}")
    else:
        yield _example(document, place)


def _of_lines(url: str, size_bytes: int) -> Iterator[Example]:
    for number, line in enumerate(_lines(url, size_bytes), start=1):
        place = f"{url}:{number}"
        text = _text(line.removeprefix(_BOM) if number == 1 else line, place)
        # Blank lines are no rows, as in a job.
        if text.strip():
            yield _example(_parsed(text, place), place)


def _lines(url: str, size_bytes: int) -> Iterator[bytes]:
    """Lines without their ends, in bounded memory."""
    store, name = open_object(url)
    rest = b""
    for start in range(0, size_bytes, _PIECE_BYTES):
        with reading_input(url):
            piece = store.read_range(name, start, min(start + _PIECE_BYTES, size_bytes))
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _text(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place}: byte {error.start + 1} is not UTF-8; repair the file"
        ) from error


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{place}: not JSON ({error}): {_quoted(text)}") from error


def _example(document: Any, place: str) -> Example:
    if not isinstance(document, dict):
        raise InputError(
            f"{place}: found {_quoted(json.dumps(document, ensure_ascii=False))}; wanted an object "
            f'such as {{"{PROMPT_KEY}": "text"}}'
        )
    if PROMPT_KEY not in document:
        names = ", ".join(map(repr, document)) or "none"
        raise InputError(f'{place}: no key "{PROMPT_KEY}"; the keys are {_quoted(names)}')
    prompt = document[PROMPT_KEY]
    if not isinstance(prompt, str):
        found = _quoted(json.dumps(prompt, ensure_ascii=False))
        raise InputError(f'{place}: "{PROMPT_KEY}" is {found}; wanted a text')
    return Example(place, prompt)


def _quoted(text: str) -> str:
    return text if len(text) <= _MOST_QUOTED_CHARS else f"{text[:_MOST_QUOTED_CHARS]}..."


# --- The tutorial's way -------------------------------------------------------------------------


def read_like_tutorial(data_dir: str) -> list[Example]:
    """All prompts of a local place, read and refused as the tutorial's program does.

    Whatever parses as JSON is one example, even the name of a file; a file is a ``.jsonl`` file; a
    folder's files come as the file system gives them. Texts of errors are the tutorial's own; one
    of a line has a note (PEP 678) with its file and line, which the tutorial does not say.

    Raises:
        InputError: as the tutorial raises, or a prompt is no text. Ends the command (exit 4).
    """
    try:
        inline = json.loads(data_dir)
    except json.JSONDecodeError:
        pass
    else:
        return [_like_tutorial(inline, _INLINE)]
    # pathlib raises where a name is too long to be one; the tutorial's functions do not.
    if os.path.isfile(data_dir):  # noqa: PTH113
        if not data_dir.endswith(".jsonl"):
            raise InputError(
                f"Provided file '{data_dir}' must have .jsonl ext and be in the jsonl format"
            )
        return _lines_like_tutorial(data_dir)
    if os.path.isdir(data_dir):  # noqa: PTH112
        return [
            example
            # Its order is the file system's, by intent.
            for folder, _, names in os.walk(data_dir)
            for name in names
            if name.endswith(".jsonl")
            for example in _lines_like_tutorial(str(Path(folder, name)))
        ]
    raise InputError(f"Provided value '{data_dir}' is neither a .jsonl file nor a json example")


def _lines_like_tutorial(path: str) -> list[Example]:
    examples = []
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                examples.append(_line_like_tutorial(line, f"{path}:{number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return examples


def _line_like_tutorial(line: str, place: str) -> Example:
    try:
        return _like_tutorial(json.loads(line), place)
    except json.JSONDecodeError as error:
        refusal = InputError(str(error))
        refusal.add_note(f"this is in {place}")
        raise refusal from error
    except InputError as error:
        if place not in str(error):
            error.add_note(f"this is in {place}")
        raise


def _like_tutorial(document: Any, place: str) -> Example:
    try:
        has_prompt = PROMPT_KEY in document
    except TypeError as error:
        raise InputError(str(error)) from error
    if not has_prompt:
        raise InputError(f'JSON key "{PROMPT_KEY}" not found in example: {document}')
    # The tutorial meets these two later, in the middle of a run.
    if not isinstance(document, dict) or not isinstance(document[PROMPT_KEY], str):
        return _example(document, place)
    return Example(place, document[PROMPT_KEY])
