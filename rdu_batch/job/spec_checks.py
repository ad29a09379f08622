"""The checks of a spec that types alone cannot say: forms of a leaf, and how leaves go together.

Promises: pure functions over plain values, so that ``loading`` can ask them about a file that has
other mistakes too. Does not: know the classes of ``spec``, which calls these, or places.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from pydantic_core import PydanticCustomError

from rdu_batch.job.records import OPTIONAL_KEYS, PREDICTION_KEYS
from rdu_batch.job.secret_words import hide_secrets
from rdu_batch.job.storage_options import option_problems, url_problem

#: Error type of a leaf's check; ``ctx["text"]`` says what was wanted.
WANTED = "wanted"
#: Error type of a section's check; ``contradictions`` finds the same ones again, with their key.
CONTRADICTION = "contradiction"

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,12})?)%")
_BYTES = re.compile(r"([1-9][0-9]{0,14})(k|M|G|T)(i?)B")

#: Takes the leaves of a section, gives (key, sentence) for each contradiction.
Check = Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]]


def _wanted(text: str) -> PydanticCustomError:
    return PydanticCustomError(WANTED, "{text}", {"text": text})


def is_iso_date(value: str) -> bool:
    """Whether a text is a day such as ``2026-11-22``, in just that form."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is None:
        return False
    try:
        dt.date.fromisoformat(value)
    except ValueError:
        return False
    return True


def percent_of(value: str) -> Fraction | None:
    """The exact share that a text such as ``0.1%`` means; None if it is no percentage to 100%."""
    match = _PERCENT.fullmatch(value)
    if match is None or Fraction(match[1]) > 100:
        return None
    return Fraction(match[1]) / 100


def bytes_of(value: str) -> int | None:
    """The number of bytes that a text such as ``8GiB`` or ``500MB`` means; None if it is none."""
    match = _BYTES.fullmatch(value)
    if match is None:
        return None
    unit = 1024 if match[3] else 1000
    return int(match[1]) * int(unit ** ("kMGT".index(match[2]) + 1))


def check_memory(value: object) -> object:
    """A number of bytes, as it is or with a unit."""
    if isinstance(value, str):
        if bytes_of(value) is not None:
            return value
    elif type(value) is int and value >= 1:
        return value
    raise _wanted('a whole number of bytes, or one with a unit such as "8GiB" or "500MB"')


def check_dead_rows(value: object) -> object:
    """A number of rows, or a percentage of them."""
    if isinstance(value, str):
        if percent_of(value) is not None:
            return value
    elif type(value) is int and value >= 0:
        return value
    raise _wanted(
        'a whole number of rows, or a percentage of them from "0%" to "100%", such as "0.1%"'
    )


def check_count(value: object) -> object:
    """A number of workers, or ``auto``."""
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise _wanted('a whole number, at least 1, or "auto"')


def check_date(value: str) -> str:
    """A day."""
    if not is_iso_date(value):
        raise _wanted("a date such as 2026-11-22")
    return value


def check_carried(value: str) -> str:
    """A field whose name is free in a prediction line."""
    taken = (*PREDICTION_KEYS, *OPTIONAL_KEYS)
    if value in taken:
        raise _wanted(f"another field: a prediction has its own {', '.join(taken)}")
    return value


def contradictions(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong between the leaves of one section, as (key, sentence).

    A key below a leaf has dots in it: ``urls.0``, ``storage_options.client_kwargs.headers``.

    ``values`` may be raw: absent keys have their default, values of a wrong type are passed over
    since they have their own error.
    """
    check = _CHECKS.get(section)
    if check is not None:
        yield from check(values)


def _prompt(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    ways = ("template", "field", "messages_field")
    given = [way for way in ways if values.get(way) is not None]
    wanted = "wanted exactly one of template, field and messages_field"
    if not given:
        yield "", f"found none of them; {wanted}"
    elif len(given) > 1:
        yield given[1], f"found {' and '.join(given)}; {wanted}"
    has_messages = "messages_field" in given
    if has_messages and values.get("chat_template") is False:
        yield "chat_template", "found false; wanted true, or nothing: messages_field is a chat"
    is_chat = has_messages or values.get("chat_template") is True
    if values.get("system") is not None and not is_chat:
        yield "system", "found a system message without a chat; wanted chat_template: true with it"


def _storage(values: Mapping[str, Any], *keys: str) -> Iterator[tuple[str, str]]:
    """No secrets in the URLs of these leaves, nor in the section's storage options."""
    for key in keys:
        found: Any = values.get(key)
        is_list = isinstance(found, (list, tuple))
        for index, url in enumerate(found if is_list else [found]):
            problem = url_problem(url) if isinstance(url, str) else None
            if problem is not None:
                yield f"{key}.{index}" if is_list else key, problem
    yield from option_problems(values.get("storage_options"), ("storage_options",))


def _output(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    url = values.get("url")
    if isinstance(url, str) and "::" in url:
        found = "found a chain of drivers (::), which can be read but not written"
        yield "url", f"{found}; wanted the URL of a folder of one store"
    yield from _storage(values, "url")


def _session(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _storage(values, "artifact")
    kind = values.get("kind", "inductor")
    if values.get("artifact") is None and isinstance(kind, str) and kind != "fake":
        wanted = f'wanted the URL of a compiled artifact, which kind "{kind}" needs'
        yield "artifact", f"missing; {wanted}; make one with rdu-batch compile"


def _listed_twice(*keys: str) -> Check:
    """A check that no list of these keys has an entry twice."""

    def check(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for key in keys:
            entries = values.get(key)
            if not isinstance(entries, (list, tuple)):
                continue
            known = [entry for entry in entries if type(entry) in (str, int)]
            for entry in dict.fromkeys(known):
                if known.count(entry) > 1:
                    shown = f'"{hide_secrets(entry)}"' if isinstance(entry, str) else entry
                    yield key, f"found {shown} {known.count(entry)} times; wanted it once"

    return check


_input_lists = _listed_twice("urls", "carry")


def _input(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _input_lists(values)
    yield from _storage(values, "urls")


_generation_lists = _listed_twice("stop", "stop_token_ids")


def _generation(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _generation_lists(values)
    least: Any = values.get("min_new_tokens", 0)
    most: Any = values.get("max_new_tokens", 64)
    if type(least) is int and type(most) is int and least > most >= 1:
        wanted = f"wanted at most generation.max_new_tokens, which is {most}"
        yield "min_new_tokens", f"found {least}; {wanted}"
    num_samples: Any = values.get("num_samples", 1)
    temperature: Any = values.get("temperature", 0.0)
    is_greedy = type(temperature) in (int, float) and temperature == 0
    if type(num_samples) is int and num_samples > 1 and is_greedy:
        found = f"found {num_samples} with generation.temperature 0, which makes them all alike"
        yield "num_samples", f"{found}; wanted 1, or a temperature above 0"


def _workers(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    least: Any = values.get("min", 1)
    most: Any = values.get("max")
    count: Any = values.get("count", "auto")
    has_least, has_most = type(least) is int, type(most) is int
    if has_least and has_most and most < least:
        yield "max", f"found {most}; wanted at least workers.min, which is {least}"
    if type(count) is not int or count < 1:
        return
    if has_least and count < least:
        yield "count", f"found {count}; wanted at least workers.min, which is {least}"
    if has_most and count > most:
        yield "count", f"found {count}; wanted at most workers.max, which is {most}"


_CHECKS: dict[str, Check] = {
    "input": _input,
    "prompt": _prompt,
    "session": _session,
    "generation": _generation,
    "output": _output,
    "workers": _workers,
}
