"""How fast a session was on some machine, as a value: measured by ``compile``, told by ``plan``.

Promises: reads back what it wrote, and nothing else. Does not: measure (``sessions``), or predict
(``report/prediction.py``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

_VERSION = 1


class Interval(NamedTuple):
    """A number that is not known exactly: at least ``low``, at most ``high``."""

    low: float
    high: float


@dataclass(frozen=True)
class Speed:
    """One session at batch size 1."""

    #: Tokens of prompts.
    prefill_tokens_per_s: Interval
    #: Tokens after the first.
    decode_tokens_per_s: Interval
    #: To open a session, once the process has its libraries.
    open_s: Interval
    #: Within operators.
    threads: int
    #: The processor, in words for people.
    machine: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "version": _VERSION,
            "prefill_tokens_per_s": list(self.prefill_tokens_per_s),
            "decode_tokens_per_s": list(self.decode_tokens_per_s),
            "open_s": list(self.open_s),
            "threads": self.threads,
            "machine": self.machine,
        }

    def to_bytes(self) -> bytes:
        """``to_json`` as a file."""
        return json.dumps(self.to_json(), indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Speed | None:
        """Read back ``to_bytes``; None for anything else, as a speed is never needed."""
        try:
            values = json.loads(content)
            speed = cls(
                prefill_tokens_per_s=_interval(values["prefill_tokens_per_s"]),
                decode_tokens_per_s=_interval(values["decode_tokens_per_s"]),
                open_s=_interval(values["open_s"]),
                threads=int(values["threads"]),
                machine=str(values["machine"]),
            )
            is_ours = values["version"] == _VERSION
        except (ValueError, KeyError, TypeError):
            return None
        rates = (speed.prefill_tokens_per_s, speed.decode_tokens_per_s)
        return speed if is_ours and all(rate.low > 0 for rate in rates) else None


def _interval(values: Any) -> Interval:
    low, high = map(float, values)
    if not 0 <= low <= high < float("inf"):
        raise ValueError(f"[{low}, {high}] is no interval")
    return Interval(low, high)
