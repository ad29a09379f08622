r"""Outcomes of rows and how a segment holds them.

An outcome is the exact line that will stand in a ``part-*`` or ``dead-*`` file, with the counts
that totals are made of. A segment is one outcome a line, in row order:

    P <prompt tokens> <generated tokens> <finish reason> <row digest> <prediction line>\n
    D <reason> <dead line>\n

A row of several samples has their finish reasons with commas between; a sampled row has no digest
(``NO_ROW_DIGEST``). The header's words are ASCII
without blanks, so that a line is cut with one split and the rest stays byte for byte what will be
published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rdu_batch.job.row_digest import NO_ROW_DIGEST


class Outcome(NamedTuple):
    """The end of one row: a prediction or a dead letter. A tuple, as one is made for each row.

    ``label`` is the finish reason of a prediction, of each sample if there are several, with commas
    between; or the reason class of a dead letter.
    """

    is_prediction: bool
    label: str
    line: bytes
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    #: Of a greedy prediction's row (``row_digest_of``).
    row_digest: str = NO_ROW_DIGEST

    def to_bytes(self) -> bytes:
        """The outcome as a segment line, with its final newline."""
        if self.is_prediction:
            header = (
                f"P {self.num_prompt_tokens} {self.num_generated_tokens} {self.label} "
                f"{self.row_digest} "
            )
        else:
            header = f"D {self.label} "
        return header.encode("ascii") + self.line

    @classmethod
    def from_bytes(cls, segment_line: bytes) -> Outcome:
        """Read a segment line, final newline included.

        Raises:
            ValueError: these bytes are not an outcome.
        """
        if segment_line.startswith(b"P "):
            _, prompt, generated, label, digest, line = segment_line.split(b" ", 5)
            counts = int(prompt), int(generated)
            return cls(True, label.decode("ascii"), line, *counts, digest.decode("ascii"))
        kind, label, line = segment_line.split(b" ", 2)
        if kind != b"D":
            raise ValueError(f"an outcome begins with P or D, found {segment_line[:20]!r}")
        return cls(False, label.decode("ascii"), line)


def published_lines(
    segment_lines: Iterable[bytes],
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The lines that are published of segment lines, and the hex row digests of the predictions.

    Predictions, dead letters, digests. For segment lines of this process's own;
    ``Outcome.from_bytes`` reads those of others.
    """
    predictions, letters, digests = [], [], []
    for line in segment_lines:
        if line.startswith(b"P "):
            *_, digest, prediction = line.split(b" ", 5)
            digests.append(digest)
            predictions.append(prediction)
        else:
            letters.append(line.split(b" ", 2)[2])
    return predictions, letters, digests


def read_outcomes(lines: Iterable[bytes]) -> Iterator[Outcome]:
    """Outcomes of segment lines, each with its newline: an open binary file, for instance."""
    return map(Outcome.from_bytes, lines)


@dataclass
class Totals:
    """Counts over outcomes; they add up, and they are what manifests and summaries are made of.

    Where a row has several samples, ``predictions`` counts the row once and ``prompt_tokens`` its
    prompt once; ``generated_tokens`` and ``finish_reasons`` count every sample.
    """

    rows: int = 0
    predictions: int = 0
    dead: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finish_reasons: dict[str, int] = field(default_factory=dict)
    dead_reasons: dict[str, int] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> None:
        """Add one outcome."""
        self.rows += 1
        self.prompt_tokens += outcome.num_prompt_tokens
        self.generated_tokens += outcome.num_generated_tokens
        if outcome.is_prediction:
            self.predictions += 1
            labels = self.finish_reasons
        else:
            self.dead += 1
            labels = self.dead_reasons
        for label in outcome.label.split(","):
            labels[label] = labels.get(label, 0) + 1

    def add(self, other: Totals) -> None:
        """Add another's counts to this one's."""
        self.rows += other.rows
        self.predictions += other.predictions
        self.dead += other.dead
        self.prompt_tokens += other.prompt_tokens
        self.generated_tokens += other.generated_tokens
        for mine, theirs in (
            (self.finish_reasons, other.finish_reasons),
            (self.dead_reasons, other.dead_reasons),
        ):
            for label, number in theirs.items():
                mine[label] = mine.get(label, 0) + number

    def to_json(self) -> dict[str, Any]:
        """A JSON object with sorted labels, so that equal counts give equal bytes."""
        return {
            "rows": self.rows,
            "predictions": self.predictions,
            "dead": self.dead,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "finish_reasons": dict(sorted(self.finish_reasons.items())),
            "dead_reasons": dict(sorted(self.dead_reasons.items())),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Totals:
        """Read back what ``to_json`` wrote."""
        return cls(**document)
