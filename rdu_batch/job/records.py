"""Rows in, prediction and dead letter lines out.

Promises: a row's values and the exact JSON text of each of its top-level values; lines with a fixed
key order, in UTF-8, one LF at the end and none inside; the same row is refused with the same reason
and detail on every machine. Does not: read files, split lines, or know what a prompt is.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from rdu_batch.errors import RowError
from rdu_batch.job.json_object import read_object, read_texts
from rdu_batch.job.plan import MAX_LINE_BYTES
from rdu_batch.job.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "DEAD_KEYS",
    "MAX_DETAIL_CHARS",
    "OPTIONAL_KEYS",
    "PREDICTION_KEYS",
    "Fields",
    "Reason",
    "Row",
    "Sample",
    "dead_line",
    "parse_row",
    "prediction_keys",
    "prediction_line",
    "row_key",
]

#: Keys of every prediction line, in order; optional keys and then carried fields follow. A carried
#: field may have none of these names.
PREDICTION_KEYS = (
    "row",
    "id",
    "prediction",
    "finish_reason",
    "num_prompt_tokens",
    "num_generated_tokens",
)
#: Keys of a prediction line where the job asks for them, in order.
OPTIONAL_KEYS = ("logprobs", "num_cut_tokens")
#: Keys of a dead letter line, in order.
DEAD_KEYS = ("row", "id", "path", "byte_offset", "reason", "detail")
#: Longest detail of a dead letter, in characters.
MAX_DETAIL_CHARS = 300

_ROW_KEY = re.compile(rb'\{"row":\[(0|[1-9][0-9]*),(0|[1-9][0-9]*)\]')


class Row(NamedTuple):
    """One line of an input that is not blank, and where it comes from.

    A tuple, as it is made once a row: a frozen dataclass takes three times as long to make.
    """

    #: Position among all rows of the job, from 0.
    ordinal: int
    file_index: int
    #: 1-based; counts blank lines too.
    line: int
    #: Path of the input file as the plan has it.
    path: str
    #: Offset of the line's first byte in its file.
    byte_offset: int
    #: The line's bytes; an LF or CR at its end does no harm.
    line_bytes: bytes
    #: Of a line that has more bytes than a reader takes: how many; ``line_bytes`` is its beginning.
    too_long_bytes: int = 0
    #: The line is not JSON but the text of a prompt, as in a ``.txt`` file.
    is_text: bool = False


class Fields:
    """The top-level fields of one row.

    Args:
        values: Python values. An integer of more than 4000 characters is a ``Decimal``.
        texts: The exact JSON text of each value; None to find them in ``text`` when asked for.
        text: The row.
    """

    __slots__ = ("_text", "_texts", "values")

    def __init__(
        self, values: dict[str, Any], texts: dict[str, str] | None = None, text: str = "{}"
    ) -> None:
        self.values = values
        self._texts = texts
        self._text = text

    @property
    def texts(self) -> dict[str, str]:
        """The exact JSON text of each value, as the input has it."""
        if self._texts is None:
            self._texts = read_texts(self._text)
        return self._texts


class Sample(NamedTuple):
    """One generation of a row; most jobs make one a row. A tuple, as ``Row`` is."""

    text: str
    finish_reason: str
    num_generated_tokens: int
    #: One natural log-probability a generated token; None where the job does not ask for them.
    logprobs: tuple[float, ...] | None = None


#: Made once: ``json.dumps`` makes an encoder at each call that is not its default.
_to_json_string = json.JSONEncoder(ensure_ascii=False).encode


def parse_row(row: Row) -> Fields:
    """Read a row: one JSON object, with the exact text of each of its values.

    A line of a ``.txt`` file is read as an object with one field, ``text``, which is the line.

    Raises:
        RowError: line_too_long, not_json, not_unicode, not_an_object, duplicate_key or too_deep.
            Ends the row.
    """
    line_bytes = row.line_bytes
    if row.too_long_bytes:
        detail = f"the line has {row.too_long_bytes} bytes; wanted at most {MAX_LINE_BYTES}"
        raise RowError(Reason.LINE_TOO_LONG, detail)
    if row.byte_offset == 0 and line_bytes.startswith(b"\xef\xbb\xbf"):
        line_bytes = line_bytes[3:]
    try:
        text = line_bytes.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} of the line is not UTF-8; wanted UTF-8"
        raise RowError(Reason.NOT_UNICODE, detail) from None
    if row.is_text:
        text = text.removesuffix("\r")
        return Fields({"text": text}, {"text": _to_json_string(text)})
    return Fields(read_object(text), None, text)


def prediction_line(
    row: Row,
    fields: Fields,
    *,
    id_field: str | None,
    carry: Sequence[str],
    num_prompt_tokens: int,
    samples: Sequence[Sample],
    num_cut_tokens: int | None = None,
) -> bytes:
    """The line of a predicted row, with its LF.

    The id and the carried fields keep the exact JSON text of the input; absent ones are null. What
    is said of each sample is one value where there is one sample, a list in the order of the
    samples where there are several. ``num_cut_tokens`` is None where the job cuts no prompts.

    Raises:
        ValueError: a text holds half of a surrogate pair. A programming error.
    """
    texts = fields.texts
    id_text = texts.get(id_field, "null") if id_field is not None else "null"
    line = f'{{"row":[{row.file_index},{row.line}],"id":{id_text}' + _said_of(
        samples, num_prompt_tokens
    )
    if samples[0].logprobs is not None:
        logprobs = [json.dumps(one.logprobs, separators=(",", ":")) for one in samples]
        line += f',"logprobs":{_one_or_list(logprobs)}'
    if num_cut_tokens is not None:
        line += f',"num_cut_tokens":{num_cut_tokens}'
    for name in carry:
        line += f",{_to_json_string(name)}:{texts.get(name, 'null')}"
    return _one_line(f"{line}}}")


def prediction_keys(decides: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of every prediction line of a job, in order; ``decides`` is that of its plan."""
    is_written = {
        "logprobs": decides["generation"]["logprobs"],
        "num_cut_tokens": decides["prompt"].get("overflow", "error") != "error",
    }
    asked_for = (key for key in OPTIONAL_KEYS if is_written[key])
    return (*PREDICTION_KEYS, *asked_for, *decides["input"]["carry"])


def dead_line(row: Row, *, reason: str, detail: str, id_text: str | None) -> bytes:
    """The line of a dead letter, with its LF.

    Args:
        row: the row that cannot be predicted.
        reason: one of ``Reason``.
        detail: one sentence, cut to ``MAX_DETAIL_CHARS``; must be the same wherever it is tried.
        id_text: the exact JSON text of the row's id (``Fields.texts``), None if it has none.
    """
    # A detail may quote what is wrong with a row, so it may hold anything; it must never fail.
    sound = detail.encode("utf-8", "backslashreplace").decode()
    if len(sound) > MAX_DETAIL_CHARS:
        sound = sound[: MAX_DETAIL_CHARS - 3] + "..."
    return _one_line(
        f'{{"row":[{row.file_index},{row.line}],"id":{"null" if id_text is None else id_text}'
        f',"path":{_to_json_string(row.path)},"byte_offset":{row.byte_offset}'
        f',"reason":{_to_json_string(reason)},"detail":{_to_json_string(sound)}}}'
    )


def _said_of(samples: Sequence[Sample], num_prompt_tokens: int) -> str:
    """The keys from ``prediction`` to ``num_generated_tokens``."""
    if len(samples) == 1:  # nearly every job: no lists on the way
        (one,) = samples
        return (
            f',"prediction":{_to_json_string(one.text)},"finish_reason":"{one.finish_reason}"'
            f',"num_prompt_tokens":{num_prompt_tokens}'
            f',"num_generated_tokens":{one.num_generated_tokens}'
        )
    predictions = ",".join(_to_json_string(one.text) for one in samples)
    finish_reasons = ",".join(f'"{one.finish_reason}"' for one in samples)
    nums_generated = ",".join(str(one.num_generated_tokens) for one in samples)
    return (
        f',"prediction":[{predictions}],"finish_reason":[{finish_reasons}]'
        f',"num_prompt_tokens":{num_prompt_tokens},"num_generated_tokens":[{nums_generated}]'
    )


def _one_or_list(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def _one_line(text: str) -> bytes:
    # An exact text may hold blank LFs only if the caller did not split its input on LF.
    return text.replace("\n", " ").encode() + b"\n"


def row_key(line_bytes: bytes) -> tuple[int, int]:
    """(file_index, line) of a prediction or dead letter line.

    Raises:
        ValueError: the bytes are not the start of such a line.
    """
    match = _ROW_KEY.match(line_bytes)
    if match is None:
        raise ValueError(f'found {line_bytes[:40]!r}; wanted a line that starts with {{"row":[')
    return int(match[1]), int(match[2])
