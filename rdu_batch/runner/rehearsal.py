"""What a run would do to sampled rows up to the session, and what it predicts of the whole.

Promises: rows are rendered and counted as a worker does it, and refused with the same reasons;
nothing is written, no session is opened, no torch is imported. Does not: choose rows
(``dataset/sampling_rows.py``), or reckon (``report/prediction.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from rdu_batch.errors import ArtifactError, RowError
from rdu_batch.job.overrides import generation_of
from rdu_batch.job.prompt import Prompt, PromptRenderer
from rdu_batch.job.records import parse_row
from rdu_batch.report.prediction import (
    DeadSample,
    Prediction,
    RowTokens,
    forecast,
    sum_of_totals,
    token_totals,
    worker_counts,
)
from rdu_batch.sessions.artifact_store import read_artifact
from rdu_batch.sessions.counting_tokenizer import open_counting_tokenizer
from rdu_batch.sessions.decode_loop import check_prompt
from rdu_batch.sessions.fake import DEFAULT_MAX_SEQ_LENGTH, VOCAB_SIZE
from rdu_batch.sessions.measured_speed import read_speed
from rdu_batch.sessions.overflow import PromptEncoder, fit_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rdu_batch.job.records import Row
    from rdu_batch.job.spec import GenerationSpec, JobSpec
    from rdu_batch.job.speed import Speed
    from rdu_batch.sessions.artifact import Artifact

#: Rows of a sample that a prediction is made from.
NUM_SAMPLED = 200


@dataclass(frozen=True)
class RehearsedRow:
    """One row as a worker would have it when its session is called."""

    path: str
    line: int
    #: None where the row cannot be rendered.
    prompt: Prompt | None
    #: None where it cannot be counted.
    num_prompt_tokens: int | None
    num_cut_tokens: int
    #: None for a row that will be a dead letter, or whose tokens are not known.
    tokens: RowTokens | None
    #: Reason and detail of the dead letter that it will be; None for a sound row.
    dead: tuple[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        text = None if self.prompt is None else self.prompt.text
        messages = None if self.prompt is None else self.prompt.messages
        reason, detail = self.dead or (None, None)
        return {
            "path": self.path,
            "line": self.line,
            "prompt": text,
            "messages": messages
            and [{"role": one["role"], "content": one["content"]} for one in messages],
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_cut_tokens": self.num_cut_tokens,
            "dead_reason": reason,
            "dead_detail": detail,
        }


class Rehearsal:
    """Takes rows of one job as far as a run takes them without a session."""

    def __init__(self, spec: JobSpec) -> None:
        """Read the artifact's description and tokenizer.

        Raises:
            ArtifactError: there is no artifact at ``session.artifact``. Ends the job.
        """
        url = spec.session.artifact
        artifact = read_artifact(url) if url is not None else None
        self._spec = spec
        self._renderer = PromptRenderer(spec.prompt)
        self._limits = _limits(spec, artifact)
        #: Why no tokens can be counted; None where they can.
        self.uncounted: str | None = None
        self._tokenizer: PromptEncoder | None = None
        try:
            self._tokenizer = open_counting_tokenizer(
                spec.session.kind, artifact, chat=spec.prompt.chat_template
            )
        except ArtifactError as error:
            self.uncounted = str(error)

    def rehearse(self, rows: Iterable[Row]) -> list[RehearsedRow]:
        """What becomes of each row."""
        return [self._rehearse(row) for row in rows]

    def _rehearse(self, row: Row) -> RehearsedRow:
        prompt, num_prompt_tokens, num_cut_tokens = None, None, 0
        tokens, dead = None, None
        try:
            fields = parse_row(row)
            settings = generation_of(fields, self._spec.generation)
            prompt = self._renderer.render(fields)
            if self._tokenizer is not None:
                ids = self._tokenizer.encode(prompt, date=self._spec.prompt.date)
                num_prompt_tokens = len(ids)
                max_seq_length, vocab_size = self._limits
                ids, num_cut_tokens = fit_prompt(
                    *(self._tokenizer, prompt, ids, self._spec.prompt.overflow),
                    date=self._spec.prompt.date,
                    max_seq_length=max_seq_length,
                    max_new_tokens=settings.max_new_tokens,
                )
                num_prompt_tokens = len(ids)
                check_prompt(ids, max_seq_length, vocab_size)
                tokens = _tokens_of(len(ids), settings, max_seq_length)
        except RowError as error:
            dead = (str(error.reason), error.detail)
        return RehearsedRow(
            row.path, row.line, prompt, num_prompt_tokens, num_cut_tokens, tokens, dead
        )


class SampledKind(NamedTuple):
    """Rows that are alike in how they can be sampled, and a sample of them."""

    sample: Sequence[RehearsedRow]
    num_rows: int


def predict(
    rehearsal: Rehearsal,
    kinds: Sequence[SampledKind],
    speed: Speed | None,
    worker_nums: Sequence[int],
    why_no_speed: str,
) -> Prediction:
    """What a run over the rows of all kinds comes to, from a sample of each."""
    rows = [row for kind in kinds for row in kind.sample]
    dead = dead_samples(rows)
    if rehearsal.uncounted is not None:
        return Prediction(None, None, (), dead, rehearsal.uncounted, len(rows))
    totals = sum_of_totals(
        [
            token_totals([row.tokens or RowTokens(0, 0, 0) for row in kind.sample], kind.num_rows)
            for kind in kinds
        ]
    )
    if speed is None:
        return Prediction(totals, None, (), dead, why_no_speed, len(rows))
    runs = tuple(forecast(totals, speed, num) for num in worker_nums)
    return Prediction(totals, speed, runs, dead, None, len(rows))


def dead_samples(rows: Sequence[RehearsedRow]) -> tuple[DeadSample, ...]:
    """Those of sampled rows that will be dead letters, by reason: the most frequent one first."""
    found: dict[str, DeadSample] = {}
    for row in rows:
        if row.dead is not None:
            reason, detail = row.dead
            first = found.get(reason, DeadSample(reason, 0, row.path, row.line, detail))
            found[reason] = replace(first, num_rows=first.num_rows + 1)
    return tuple(sorted(found.values(), key=lambda one: (-one.num_rows, one.reason)))


def speed_of(spec: JobSpec) -> tuple[Speed | None, str]:
    """The measured speed of a job's sessions; None, and why, where there is none that fits."""
    session = spec.session
    if session.artifact is None:
        return None, f"no times: a session of kind {session.kind} without an artifact has no speed"
    speed = read_speed(session.artifact)
    unknown = "no times: `rdu-batch compile` measured no speed"
    if speed is None:
        return None, f"{unknown} of {session.artifact}"
    if speed.threads != session.threads:
        return None, f"{unknown} with session.threads {session.threads}, but with {speed.threads}"
    if read_artifact(session.artifact).kind != session.kind:
        return None, f"{unknown} of kind {session.kind} on this artifact"
    return speed, ""


def planned_workers(spec: JobSpec, num_shards: int) -> list[int]:
    """For how many workers to predict: as many as the job asks for, or has work for."""
    workers = spec.workers
    if isinstance(workers.count, int):
        return worker_counts(workers.count)
    most = num_shards if workers.max is None else min(num_shards, workers.max)
    return worker_counts(max(workers.min, most))


def _limits(spec: JobSpec, artifact: Artifact | None) -> tuple[int, int]:
    """max_seq_length and vocabulary of the session."""
    if artifact is not None and (spec.session.kind != "fake" or artifact.kind == "fake"):
        vocab_size = VOCAB_SIZE if spec.session.kind == "fake" else artifact.vocab_size
        return artifact.max_seq_length, vocab_size
    return DEFAULT_MAX_SEQ_LENGTH, VOCAB_SIZE


def _tokens_of(num_prompt: int, settings: GenerationSpec, max_seq_length: int) -> RowTokens:
    num_samples, room = settings.num_samples, max_seq_length - num_prompt
    most = min(settings.max_new_tokens, room)
    least = min(max(1, settings.min_new_tokens), most)
    return RowTokens(num_prompt, num_samples * least, num_samples * most, num_samples)
