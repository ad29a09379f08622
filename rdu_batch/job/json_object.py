"""One JSON object to values, and to the exact text of each top-level value for who asks.

Promises: stricter than ``json.loads``: no NaN, no duplicate key at any depth, no half surrogate
pair, no nesting deeper than ``MAX_DEPTH``; the same text is refused with the same reason and detail
on every machine. What Python's parser would say is never part of a detail, since its wording and
its limits differ between versions and with the depth of the calling stack. Does not: know rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NoReturn

from rdu_batch.errors import RowError
from rdu_batch.job.reasons import Reason

#: Arrays and objects inside each other; well below what Python's parser can take on any stack.
MAX_DEPTH = 256
#: An integer with more characters becomes a Decimal; Python's own limit for int() is 4300 digits.
MAX_INT_DIGITS = 4000


class _DuplicateKey(ValueError):
    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(key)


class _NotANumber(ValueError):
    pass


def _refuse_constant(name: str) -> NoReturn:
    raise _NotANumber(name)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return values


def _whole_number(text: str) -> int | Decimal:
    # sys.set_int_max_str_digits would change the whole process.
    return int(text) if len(text) <= MAX_INT_DIGITS else Decimal(text)


_decoder = json.JSONDecoder(object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
_decoder_of_long_numbers = json.JSONDecoder(
    object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant, parse_int=_whole_number
)

#: The C parser's own entrance: what ``decode`` does around it costs as much again for a short line.
_scan: Callable[[str, int], tuple[Any, int]] = vars(_decoder)["scan_once"]

_BLANK = "[ \t\n\r]*+"
# A key without escapes, its colon and the blanks up to its value. Other keys take a slower way.
_KEY = rf'"([^"\\\x00-\x1f]*+)"{_BLANK}:{_BLANK}'
_match_open = re.compile(rf"{_BLANK}\{{{_BLANK}").match
_match_key = re.compile(_KEY).match
_match_next_key = re.compile(rf"{_BLANK},{_BLANK}{_KEY}").match
_match_comma = re.compile(rf"{_BLANK},{_BLANK}").match
_match_colon = re.compile(rf"{_BLANK}:{_BLANK}").match
_match_close = re.compile(rf"{_BLANK}\}}{_BLANK}").match
_LONG_NUMBER = re.compile(rf"(?<![0-9])[0-9]{{{MAX_INT_DIGITS}}}")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_ONE_KIND = str.maketrans("{}", "[]")
_NOT_BRACKETS = re.compile(r"[^][{}]+")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)")


def read_object(text: str) -> dict[str, Any]:
    """The values of a JSON object.

    An integer of more than ``MAX_INT_DIGITS`` characters is a ``Decimal``, any other an ``int``.

    Raises:
        RowError: not_json, not_unicode, not_an_object, duplicate_key or too_deep. Ends the row.
    """
    if len(text) > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(text)
    values = _read_plain(text)
    if values is None:
        values = _read_strictly(text)[0]
    if "\\u" in text and _SURROGATE_ESCAPE.search(text):
        _check_surrogates(text)
    return values


def read_texts(text: str) -> dict[str, str]:
    """The exact text of each value of a JSON object that ``read_object`` has read."""
    return _read_strictly(text)[1]


def _read_plain(text: str) -> dict[str, Any] | None:
    """The values of a good object; None for the strict parse to say what it is."""
    if len(text) > MAX_INT_DIGITS and _LONG_NUMBER.search(text):
        return None
    try:
        values, end = _scan(text, 0)
    except (ValueError, StopIteration, RecursionError):
        return None
    if type(values) is not dict or (end != len(text) and text[end:].strip(" \t\r\n")):
        return None
    return values


def _read_strictly(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Every value and its exact text, by a parse that says what is wrong, and where."""
    opened = _match_open(text)
    if opened is None:
        _refuse_not_an_object(text)
    decoder = _decoder
    if len(text) > MAX_INT_DIGITS and _LONG_NUMBER.search(text):
        decoder = _decoder_of_long_numbers
    values, texts, end = _read_fields(text, opened.end(), decoder)
    closed = _match_close(text, end)
    if closed is None:
        _refuse_not_json("character", end, 'wanted "," and a key, or "}"')
    if closed.end() != len(text):
        _refuse_not_json("character", closed.end(), "wanted nothing after the object")
    return values, texts


def _read_fields(
    text: str, at: int, decoder: json.JSONDecoder
) -> tuple[dict[str, Any], dict[str, str], int]:
    """Every field from ``at`` on, and where the last one ends."""
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    decode = decoder.raw_decode
    match = _match_key(text, at)
    found = (match[1], match.end()) if match else _read_first_key(text, at)
    while found is not None:
        key, start = found
        try:
            value, end = decode(text, start)
        except (ValueError, RecursionError) as error:
            _refuse_value(error, key, start)
        if key in values:
            _refuse_duplicate(key)
        values[key] = value
        texts[key] = text[start:end]
        at = end
        match = _match_next_key(text, at)
        found = (match[1], match.end()) if match else _read_next_key(text, at)
    return values, texts, at


def _read_first_key(text: str, at: int) -> tuple[str, int] | None:
    return None if text.startswith("}", at) else _read_key(text, at)


def _read_next_key(text: str, at: int) -> tuple[str, int] | None:
    comma = _match_comma(text, at)
    return None if comma is None else _read_key(text, comma.end())


def _read_key(text: str, at: int) -> tuple[str, int]:
    """The key that begins at ``at``, and where its value starts."""
    if not text.startswith('"', at):
        _refuse_not_json("character", at, "wanted a key in double quotes")
    try:
        key, end = _decoder.raw_decode(text, at)
    except ValueError:
        _refuse_not_json("the key at character", at, "wanted a string")
    colon = _match_colon(text, end)
    if colon is None:
        _refuse_not_json("character", end, 'wanted ":"')
    return key, colon.end()


def _refuse_not_json(what: str, at: int, wanted: str) -> NoReturn:
    # Character numbers are counted from 1, after a byte order mark, as editors show columns.
    detail = f"{what} {at + 1} of the line is not valid JSON; {wanted}"
    raise RowError(Reason.NOT_JSON, detail) from None


def _refuse_value(error: BaseException, key: str, start: int) -> NoReturn:
    if isinstance(error, _DuplicateKey):
        _refuse_duplicate(error.key)
    if isinstance(error, RecursionError):
        # Only a line whose brackets do not match can come here; see _check_depth.
        _refuse_too_deep()
    wanted = "wanted a JSON value"
    if isinstance(error, _NotANumber):
        wanted = f"found {error}, which JSON does not have"
    _refuse_not_json(f"the value of {_quoted(key)}, which starts at character", start, wanted)


def _refuse_duplicate(key: str) -> NoReturn:
    detail = f"the key {_quoted(key)} is given twice in one object; wanted it once"
    raise RowError(Reason.DUPLICATE_KEY, detail) from None


def _refuse_too_deep() -> NoReturn:
    detail = f"arrays and objects lie more than {MAX_DEPTH} deep in each other, or do not match"
    raise RowError(Reason.TOO_DEEP, detail) from None


def _refuse_not_an_object(text: str) -> NoReturn:
    """A JSON value of another type has its own reason; anything else is not JSON."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_whole_number)
    except (ValueError, RecursionError):
        _refuse_not_json("character", 0, "wanted a JSON object")
    names: dict[type, str] = {list: "an array", str: "a string", bool: "true or false"}
    found = "null" if value is None else names.get(type(value), "a number")
    detail = f"the line is {found}; wanted a JSON object"
    raise RowError(Reason.NOT_AN_OBJECT, detail) from None


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the parser sees it, with work linear in the line per level."""
    brackets = _NOT_BRACKETS.sub("", _STRING.sub("", text)).translate(_ONE_KIND)
    for _ in range(MAX_DEPTH):
        # Each pass takes away the innermost level. Whether "[" is closed by "]" is for the parser.
        inner = brackets.replace("[]", "")
        if not inner:
            return
        if len(inner) == len(brackets):
            break
        brackets = inner
    _refuse_too_deep()


def _check_surrogates(text: str) -> None:
    high_end = -1
    for escape in _ESCAPE.finditer(text):
        code = int(escape[1], 16) if escape[1] else 0
        if 0xDC00 <= code <= 0xDFFF:
            if escape.start() != high_end:
                _refuse_surrogate(escape[0], escape.start())
            high_end = -1
            continue
        if high_end >= 0:
            break
        high_end = escape.end() if 0xD800 <= code <= 0xDBFF else -1
    if high_end >= 0:
        _refuse_surrogate(text[high_end - 6 : high_end], high_end - 6)


def _refuse_surrogate(escape: str, at: int) -> NoReturn:
    detail = f"{escape} at character {at + 1} of the line is half of a surrogate pair"
    raise RowError(Reason.NOT_UNICODE, detail)


def _quoted(key: str) -> str:
    text = json.dumps(key)
    return text if len(text) <= 80 else f'{text[:76]}..."'
