"""The small job that a chaos sweep runs again and again, made from a user's own.

Promises: its first rows, its prompt, and the way its output is written; two broken lines among the
rows, so that dead letters are part of what is compared; three or four shards. Its session is fake,
unless the job's own is asked for: what a fault may break is the same, and a run takes milliseconds.
Writes only to the local folder that it is given.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdu_batch.dataset.planning import make_plan, save_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import InputError
from rdu_batch.job.spec import JobSpec
from rdu_batch.runner.job_context import with_absolute_urls
from rdu_batch.sessions.artifact import ARTIFACT_FILE, Artifact, Target
from rdu_batch.storage.store import open_store

#: Lines that no session sees: each becomes a dead letter.
BROKEN_LINES = (b"this line is not JSON", b'{"cut short": ')
NUM_SHARDS = 4
#: Tokens of one prediction of the fake session; a row needs no more to be in the middle of.
FAKE_NEW_TOKENS = 8
#: Room of the fake session, so that no prompt of a real job is too long for it.
FAKE_MAX_SEQ_LENGTH = 1 << 20
#: Strikes, a kill is one: a single one must not make a dead letter.
LEAST_ATTEMPTS = 3


@dataclass(frozen=True)
class SmallJob:
    """The job and how many rows and shards it has; its output is each trial's own."""

    document: dict[str, Any]
    num_rows: int
    num_shards: int

    @property
    def rows_per_shard(self) -> int:
        """Of all shards but perhaps the last."""
        return int(self.document["output"]["rows_per_shard"])

    def spec(self, output_url: str) -> JobSpec:
        """The job with this output."""
        output = {**self.document["output"], "url": output_url}
        return JobSpec.model_validate_json(json.dumps({**self.document, "output": output}))


def make_small_job(spec: JobSpec, folder: str, num_rows: int, *, own_session: bool) -> SmallJob:
    """Copy the first rows of a job and write its small form.

    Args:
        spec: the user's job; only read.
        folder: local folder for the rows, and for the artifact of the fake session.
        num_rows: how many rows to copy; fewer if the job has fewer.
        own_session: run the job's own session, not a fake one.

    Raises:
        InputError: the job's inputs cannot be read, or hold no row (exit 4).
        ArtifactError: the job's own session has no artifact (exit 8).
    """
    rows = _first_rows(spec, folder, num_rows)
    if not rows:
        raise InputError(
            f"the inputs of {spec.name} hold no row to try anything with: "
            f"{', '.join(spec.input.urls)}"
        )
    # One where leases are small, one further on: both ways to seal a shard meet a dead letter.
    lines = [*rows[:1], BROKEN_LINES[0], *rows[1:-1], BROKEN_LINES[1], *rows[-1:]]
    if len(rows) == 1:
        lines = [rows[0], *BROKEN_LINES]
    path = Path(folder, "rows.jsonl")
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    rows_per_shard = -(-len(lines) // NUM_SHARDS)
    document = with_absolute_urls(spec).model_dump(mode="json")
    document["input"] |= {"urls": [str(path)], "limit": None}
    document["output"]["rows_per_shard"] = rows_per_shard
    document["limits"] |= {
        "max_dead_rows": "100%",
        "attempts_per_row": max(spec.limits.attempts_per_row, LEAST_ATTEMPTS),
        "deadline_s": None,
    }
    document["workers"] = {"count": 2, "cpus": 0.5}
    if not own_session:
        document["session"] = {"kind": "fake", "artifact": _fake_artifact(folder)}
        # Greedy: whatever else a job asks for needs torch, and no fault cares.
        tokens = min(spec.generation.max_new_tokens, FAKE_NEW_TOKENS)
        document["generation"] = {"max_new_tokens": tokens}
    return SmallJob(document, len(lines), -(-len(lines) // rows_per_shard))


def _first_rows(spec: JobSpec, folder: str, num_rows: int) -> list[bytes]:
    """The first rows of the user's inputs, whatever these are."""
    limit = min(num_rows, spec.input.limit or num_rows)
    limited = spec.model_copy(update={"input": spec.input.model_copy(update={"limit": limit})})
    store = open_store(str(Path(folder, "rows-plan")))
    # The artifact does not matter here: the plan is made for its index only.
    plan = save_plan(store, make_plan(limited, ""))
    return [row.line_bytes for row in RowReader(store, plan).read_rows(0, plan.num_rows)]


def _fake_artifact(folder: str) -> str:
    artifact = Artifact(
        kind="fake",
        dtype="fp32",
        max_seq_length=FAKE_MAX_SEQ_LENGTH,
        prefill_chunk=1,
        cache_length=FAKE_MAX_SEQ_LENGTH,
        num_layers=0,
        num_kv_heads=0,
        head_size=0,
        vocab_size=257,
        threads=None,
        model_family="fake",
        model_digest="sha256:0",
        settings_digest="sha256:0",
        target=Target(),
        files={},
    )
    path = Path(folder, "artifact")
    path.mkdir(exist_ok=True)
    (path / ARTIFACT_FILE).write_bytes(artifact.to_bytes())
    return str(path)
