"""The values that the report page shows; nothing is read or decided here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DeadSample:
    """One dead letter to look at; its texts come from rows and may hold anything."""

    place: str
    detail: str


@dataclass(frozen=True)
class PageFacts:
    """What one look at an output found."""

    name: str
    output: str
    #: ``empty``, ``unfinished`` or ``complete``.
    state: str
    rows: int
    rows_durable: int
    shards: int
    shards_committed: int
    #: ``Totals.to_json()``; None until the job is complete.
    totals: dict[str, Any] | None
    #: What each epoch reported, oldest first; of one that reported nothing its number as ``epoch``
    #: and in ``state`` what that means.
    epochs: tuple[dict[str, Any], ...] = ()
    #: Earlier epochs that were not looked at.
    num_epochs_left_out: int = 0
    #: Of the sampled rows; one number for each sample of a row where generated.
    prompt_tokens: tuple[int, ...] = ()
    generated_tokens: tuple[int, ...] = ()
    #: Dead letters by reason, a few of each.
    dead_samples: dict[str, tuple[DeadSample, ...]] = field(default_factory=dict)
    num_sampled_rows: int = 0
    num_sampled_parts: int = 0
    #: Of an unfinished job those that are finished.
    num_parts: int = 0
    num_sampled_dead_files: int = 0
    num_dead_files: int = 0
    #: Sampled parts that could not be read as what they claim to be.
    num_damaged_parts: int = 0
    #: When the output was looked at, seconds since 1970; None to say nothing of it.
    looked_s: float | None = None
