"""What a store was found to guarantee, and which commit protocol follows from that.

Values and one pure choice. Does not: measure anything (see ``probe.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Guarantee(StrEnum):
    """What a store may promise; the probe looks at them in this order."""

    WHOLE_WRITE = "whole_write"
    EMPTY_OBJECT = "empty_object"
    OVERWRITE = "overwrite"
    LISTING = "listing"
    COPY = "copy"
    DELETE = "delete"
    CREATE_ONCE = "create_once"
    CREATE_RACE = "create_race"


#: Each guarantee in words for people.
MEANING = {
    Guarantee.WHOLE_WRITE: "a written object is read back whole at once",
    Guarantee.EMPTY_OBJECT: "an empty object can be written, read and listed",
    Guarantee.OVERWRITE: "an overwritten object is read as new at once",
    Guarantee.LISTING: "a listing shows what was just written, not what was just deleted",
    Guarantee.COPY: "a copy has the same bytes and replaces its target",
    Guarantee.DELETE: "a deleted object is gone at once",
    Guarantee.CREATE_ONCE: "a create over an existing object fails and changes nothing",
    Guarantee.CREATE_RACE: "of creators of one name at the same time exactly one wins",
}


class Verdict(StrEnum):
    """What came of looking at one guarantee."""

    HELD = "held"
    #: The store took the request and did something else.
    BROKEN = "broken"
    #: The store, or its driver, has no such request.
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Finding:
    """A guarantee, whether it was kept, and what was seen."""

    guarantee: Guarantee
    verdict: Verdict
    seen: str


class Protocol(StrEnum):
    """How an output on a store is committed."""

    #: Commit records and driver epochs are created exactly once: drivers and workers may race.
    CREATE_ONCE = "create_once"
    #: They are looked for, then written. Sound only while no two runs work on the output.
    SINGLE_WRITER = "single_writer"
    #: The store cannot hold an output.
    NONE = "none"


#: What to do with a store of each protocol.
ADVICE = {
    Protocol.CREATE_ONCE: "this store can hold an output; several drivers may race for it safely",
    Protocol.SINGLE_WRITER: (
        "choose another store for output.url; or, if you make sure that no two runs ever work on "
        "this output at the same time, set `output.single_writer: true` in the job file"
    ),
    Protocol.NONE: "this store cannot hold an output; choose another one for output.url",
}

_WANTED_OF_ANY_OUTPUT = frozenset(
    {
        Guarantee.WHOLE_WRITE,
        Guarantee.EMPTY_OBJECT,
        Guarantee.OVERWRITE,
        Guarantee.LISTING,
        Guarantee.COPY,
        Guarantee.DELETE,
    }
)
_WANTED_OF_RACES = frozenset({Guarantee.CREATE_ONCE, Guarantee.CREATE_RACE})


def choose_protocol(verdicts: Mapping[Guarantee, Verdict]) -> Protocol:
    """Choose the strongest protocol that the verdicts allow; what was not looked at is not held."""
    held = {guarantee for guarantee, verdict in verdicts.items() if verdict is Verdict.HELD}
    if not held >= _WANTED_OF_ANY_OUTPUT:
        return Protocol.NONE
    return Protocol.CREATE_ONCE if held >= _WANTED_OF_RACES else Protocol.SINGLE_WRITER


@dataclass(frozen=True)
class ProbeReport:
    """What a probe found on one store.

    Args:
        url: of the store.
        create_once_by: what its driver creates once by, in words; None where it cannot.
        findings: in the order of ``Guarantee``; after the first ones fail the rest is left out.
        latency_ms: median milliseconds of one request of each kind.
    """

    url: str
    create_once_by: str | None
    findings: tuple[Finding, ...]
    latency_ms: Mapping[str, float]

    @property
    def protocol(self) -> Protocol:
        """The protocol that the findings allow."""
        return choose_protocol({found.guarantee: found.verdict for found in self.findings})

    @property
    def advice(self) -> str:
        """What to do with this store."""
        return ADVICE[self.protocol]

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "url": self.url,
            "protocol": str(self.protocol),
            "create_once_by": self.create_once_by,
            "findings": {
                str(found.guarantee): {"verdict": str(found.verdict), "seen": found.seen}
                for found in self.findings
            },
            "latency_ms": dict(self.latency_ms),
            "advice": self.advice,
        }
