"""The matrix of a chaos sweep: how many trials of each fault kept each promise; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rdu_batch.errors import VerifyFailed
from rdu_batch.report.fault_matrix import matrix_lines
from rdu_batch.report.wording import counted
from rdu_batch.runner.chaos_points import SESSION_CALLS, Point
from rdu_batch.runner.chaos_promises import PROMISED, Promise


@dataclass(frozen=True)
class Verdict:
    """What came of one trial."""

    fault: str
    #: Number of the point, or of the draw through Ray.
    number: int
    #: Where it was, for people.
    place: str
    #: What was broken, by promise.
    broken: Mapping[Promise, str] = field(default_factory=dict)
    #: Why the trial proves nothing; empty if it does.
    void: str = ""

    @property
    def label(self) -> str:
        """What ``--only`` takes."""
        return f"{self.fault} @ {self.number}"


@dataclass(frozen=True)
class ChaosReport:
    """What a sweep came to.

    Args:
        name: of the job.
        scratch: where its trials were run.
        rows: of the small job.
        shards: of the small job.
        points: of its runs.
        verdicts: one a trial, in the order of the faults.
        seed: of the draw through Ray.
    """

    name: str
    scratch: str
    rows: int
    shards: int
    points: Sequence[Point]
    verdicts: Sequence[Verdict]
    seed: int

    @property
    def violations(self) -> list[Verdict]:
        """The trials that broke a promise."""
        return [verdict for verdict in self.verdicts if verdict.broken]

    @property
    def void(self) -> list[Verdict]:
        """The trials that prove nothing."""
        return [verdict for verdict in self.verdicts if verdict.void]

    @property
    def exit(self) -> int:
        """0, or 7 if a promise was broken or a fault could not be tried."""
        return VerifyFailed.exit_code if self.violations or self.void else 0

    def to_json(self) -> dict[str, Any]:
        """The JSON object that ends standard output."""
        points = self._num_points()
        return {
            "name": self.name,
            "scratch": self.scratch,
            "rows": self.rows,
            "shards": self.shards,
            "points": points,
            "trials": len(self.verdicts),
            "faults": {
                fault: {"trials": len(of_fault), **_held(of_fault)}
                for fault, of_fault in self._by_fault().items()
            },
            "violations": [
                {
                    "trial": verdict.label,
                    "place": verdict.place,
                    "broken": {str(promise): text for promise, text in verdict.broken.items()},
                }
                for verdict in self.violations
            ],
            "void": [verdict.label for verdict in self.void],
            "seed": self.seed,
            "exit": self.exit,
        }

    def lines(self) -> Iterator[str]:
        """The matrix for people, then every violation."""
        points = self._num_points()
        yield (
            f"{self.name}: {counted(self.rows, 'row')} in {counted(self.shards, 'shard')}; "
            f"{points['store']} store calls and {points['rows']} row boundaries of a first run, "
            f"{points['resumed']} points of runs that go on after a kill; "
            f"{counted(len(self.verdicts), 'trial')}"
        )
        yield ""
        cells = {
            fault: [f"{held}/{len(of_fault)}" for held in _held(of_fault).values()]
            for fault, of_fault in self._by_fault().items()
        }
        yield from matrix_lines("fault", [str(promise) for promise in Promise], cells)
        yield ""
        for promise, text in PROMISED.items():
            yield f"  {promise:<8} {text}"
        yield ""
        for verdict in self.violations:
            yield f"BROKEN  {verdict.label}  ({verdict.place})"
            for promise, text in verdict.broken.items():
                yield f"        {promise}: {text}"
        for verdict in self.void:
            yield f"VOID    {verdict.label}  ({verdict.place}): {verdict.void}"
        if self.violations:
            yield f"repeat one alone with --only '{self.violations[0].label}'"
        elif not self.void:
            yield "every promise held in every trial"

    def _num_points(self) -> dict[str, int]:
        first = [point for point in self.points if point.killed_at is None]
        num_rows = sum(point.operation in SESSION_CALLS for point in first)
        return {
            "store": len(first) - num_rows,
            "rows": num_rows,
            "resumed": len(self.points) - len(first),
        }

    def _by_fault(self) -> dict[str, list[Verdict]]:
        by_fault: dict[str, list[Verdict]] = {}
        for verdict in self.verdicts:
            by_fault.setdefault(verdict.fault, []).append(verdict)
        return by_fault


def _held(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many trials kept each promise. A void one kept none."""
    sound = [verdict for verdict in verdicts if not verdict.void]
    broken = Counter(promise for verdict in sound for promise in verdict.broken)
    return {str(promise): len(sound) - broken[promise] for promise in Promise}
