"""What differs between the published line of a row and its outcome when it is run again; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.published import read_record

RowKey = tuple[int, int]


@dataclass(frozen=True)
class PublishedLine:
    """A line of an output, and where it stands."""

    file: str
    #: 1-based.
    number: int
    line: bytes
    is_prediction: bool


@dataclass(frozen=True)
class Difference:
    """One field of one row that is not what running it again gives; values as texts."""

    row: RowKey
    file: str
    #: Number of the line in its file, 0 where there is no such line.
    line: int
    field: str
    published: Any
    now: Any

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**vars(self), "row": list(self.row)}


def compare(key: RowKey, lines: Sequence[PublishedLine], now: Outcome) -> Iterator[Difference]:
    """What differs between the published lines of a row and its outcome now; pure."""
    if len(lines) != 1:
        places = ", ".join(f"{one.file}:{one.number}" for one in lines) or "nowhere"
        yield Difference(key, lines[0].file if lines else "", 0, "row", places, _kind_of(now))
        return
    (published,) = lines
    if published.line == now.line:
        return

    def differs(name: str, there: Any, here: Any) -> Difference:
        return Difference(key, published.file, published.number, name, there, here)

    if published.is_prediction != now.is_prediction:
        there = "prediction" if published.is_prediction else "dead letter"
        yield differs("outcome", there, _kind_of(now))
        return
    try:
        record = read_record(published.line)
    except (ValueError, TypeError) as error:
        yield differs("line", f"damaged: {error}", now.line.decode())
        return
    fields = _differing_fields(record, read_record(now.line))
    for name, there, here in fields:
        yield differs(name, there, here)
    if not fields:
        yield differs("line", published.line.decode("utf-8", "replace"), now.line.decode())


def _differing_fields(there: dict[str, Any], here: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    names = [*there, *(name for name in here if name not in there)]
    return [
        (name, there.get(name), here.get(name))
        for name in names
        if name not in there or name not in here or there[name] != here[name]
    ]


def _kind_of(outcome: Outcome) -> str:
    return "prediction" if outcome.is_prediction else f"dead letter: {outcome.label}"
