"""The end of a job in one value: a few lines for people and one JSON object for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from rdu_batch.job.records import Reason
from rdu_batch.job.run_paths import FORENSICS_FOLDER
from rdu_batch.job.speed import Interval
from rdu_batch.report.ci_text import json_line
from rdu_batch.report.prediction import span
from rdu_batch.report.reused import Reused
from rdu_batch.report.wording import counted

#: The state of a run that brought its job to the end.
COMPLETE: Final = "complete"
#: Exit code of a job that is complete, with more dead letters than it allows.
EXIT_TOO_MANY_DEAD: Final = 5


@dataclass(frozen=True)
class Summary:
    """What a run came to. Counts are the job's; ``wall_s`` and the rate are this run's."""

    name: str
    #: ``complete`` or ``already complete``; a run that ends otherwise ends with an error.
    state: str
    exit: int
    output: str
    rows: int = 0
    predictions: int = 0
    dead: int = 0
    shards: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    finish_reasons: dict[str, int] = field(default_factory=dict)
    dead_reasons: dict[str, int] = field(default_factory=dict)
    #: Rows that earlier runs of this job had made durable already.
    rows_resumed: int = 0
    wall_s: float = 0.0
    #: Tokens that this run generated, a second of its wall time, session start included.
    tokens_per_s: float = 0.0
    workers: int = 0
    workers_lost: int = 0
    #: Where this run's workers spent their time: ``total_s``, and the classes that make it.
    worker_seconds: dict[str, float] = field(default_factory=dict)
    job_digest: str = ""
    #: Least and most ``wall_s`` by the prediction at this run's start; None where none was made.
    predicted_wall_s: Interval | None = None
    #: With ``input.since``: what was taken over; it counts among ``rows``.
    reused: Reused | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON object that ends standard output."""
        leaves = dict(vars(self))
        predicted = leaves.pop("predicted_wall_s")
        reused = leaves.pop("reused")
        if reused is not None:
            leaves["reused"] = vars(reused)
        if predicted is not None:
            leaves["predicted_wall_s"] = [round(one, 1) for one in predicted]
        return {
            **leaves,
            "wall_s": round(self.wall_s, 3),
            "tokens_per_s": round(self.tokens_per_s, 2),
        }

    def to_line(self) -> str:
        """``to_json`` as one line of text."""
        return json_line(self.to_json())

    def to_text(self) -> str:
        """A few aligned lines for people."""
        rows = [
            ("job", f"{self.name}: {self.state}"),
            ("rows", f"{self.rows:,} = {self.predictions:,} predictions + {self.dead:,} dead"),
            ("tokens", f"{self.prompt_tokens:,} prompt, {self.generated_tokens:,} generated"),
            ("ended by", _counts(self.finish_reasons)),
        ]
        if self.dead_reasons:
            rows.append(("dead", _counts(self.dead_reasons)))
        if self.dead_reasons.keys() & {Reason.SESSION_KILLED, Reason.ROW_TIMEOUT}:
            # With --executor inline nobody outlives a session to write there.
            rows.append(("deaths", f"described in {self.output}/{FORENSICS_FOLDER}/"))
        if self.exit:
            more = "more dead letters than limits.max_dead_rows or --fail-on allow; see dead-*"
            rows.append(("exit", f"{self.exit}: {more}"))
        if self.reused is not None:
            rows.append(("reused", self.reused.to_text(self.rows)))
        if self.rows_resumed:
            rows.append(("resumed", f"{self.rows_resumed:,} rows were done by an earlier run"))
        if self.wall_s:
            rate = f", {self.tokens_per_s:,.1f} generated tokens/s" if self.tokens_per_s else ""
            workers = f", {counted(self.workers, 'worker')}" if self.workers else ""
            rows.append(("time", f"{self.wall_s:,.1f} s{rate}{workers}"))
        if self.predicted_wall_s is not None:
            rows.append(("predicted", _how_far_off(self.predicted_wall_s, self.wall_s)))
        if self.workers_lost:
            rows.append(
                ("lost", f"{counted(self.workers_lost, 'worker')}, whose rows ran elsewhere")
            )
        rows.append(("worker time", _shares(self.worker_seconds)))
        rows.append(("output", f"{self.output} ({counted(self.shards, 'shard')})"))
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:>{width}}  {text}" for label, text in rows if text)


def _how_far_off(predicted: Interval, took_s: float) -> str:
    """``41-55 s, took 48 s``, and by what it was missed."""
    told = f"{span(predicted)}, took {span(Interval(took_s, took_s))}"
    if predicted.low <= took_s <= predicted.high:
        return told
    nearest_s = predicted.low if took_s < predicted.low else predicted.high
    more = "more" if took_s > nearest_s else "less"
    return f"{told}: {abs(took_s / nearest_s - 1):.0%} {more}"


def _shares(worker_seconds: dict[str, float]) -> str:
    """``12.3 s: decode 60 %, prefill 30 %``; classes under half a percent are left out."""
    total_s = worker_seconds.get("total_s", 0.0)
    if not total_s:
        return ""
    shares = {
        name.removesuffix("_s").replace("_", " "): 100 * seconds / total_s
        for name, seconds in worker_seconds.items()
        if name != "total_s"
    }
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {share:.0f} %" for name, share in ordered if share >= 0.5)
    return f"{total_s:,.1f} s: {told}"


def _counts(numbers: dict[str, int]) -> str:
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{label} {number:,}" for label, number in ordered)
