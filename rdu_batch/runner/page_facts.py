"""What the report page needs of an output, read through its store alone; nothing is written.

Promises: rows are sampled from the beginnings of a bounded number of files, a bounded number of
bytes of each. A damaged or missing file is counted, never an error: ``verify`` judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rdu_batch.errors import ObjectMissing, VerifyFailed
from rdu_batch.job.records import DEAD_KEYS, PREDICTION_KEYS
from rdu_batch.job.run_paths import PLAN, SUCCESS
from rdu_batch.report.page_values import DeadSample, PageFacts
from rdu_batch.runner.epochs import read_object
from rdu_batch.runner.manifest import read_manifest
from rdu_batch.runner.published import read_lines, read_record
from rdu_batch.runner.run_layout import RESULTS_FOLDER, epoch_result, numbers_in
from rdu_batch.runner.status import read_status
from rdu_batch.storage.store import Store

#: Files of each kind that are looked into, spread over all shards.
MAX_FILES: Final = 32
#: Bytes of lines taken of each; the line that crosses it is the last.
MAX_SAMPLE_BYTES: Final = 256 << 10
MAX_EPOCHS: Final = 50
MAX_DEAD_OF_A_REASON: Final = 3


def read_page_facts(store: Store) -> PageFacts:
    """Look at an output.

    Raises:
        OutputMismatch: another format version wrote it.
        VerifyFailed: there is no job, or its manifest is damaged (exit 7).
        StoreError: the store failed.
    """
    status = read_status(store)
    if status.state == "empty":
        raise VerifyFailed(
            f"{store.url}: there is neither {PLAN} nor {SUCCESS}, so no job has begun there; "
            "wanted an output, as output.url of a job file names it. Correct the URL; "
            "`rdu-batch status ID` tells the output of a submission."
        )
    parts: list[dict[str, Any]] = []
    if status.state == "complete":
        parts = read_manifest(store)[0]["parts"]
    dead_files = [part["dead"] for part in parts if part["dead"]]
    sample = _Sample(store)
    for part in spread(parts, MAX_FILES):
        sample.take_predictions(part)
    for file in spread(dead_files, MAX_FILES):
        sample.take_dead(file)
    numbers = numbers_in(store.list_names(RESULTS_FOLDER))
    epochs = tuple(read_object(store.read(epoch_result(one))) for one in numbers[-MAX_EPOCHS:])
    return PageFacts(
        name=status.name or "output",
        output=status.output,
        state=status.state,
        rows=status.rows,
        rows_durable=status.rows_durable,
        shards=status.shards,
        shards_committed=status.shards_committed,
        totals=status.totals.to_json() if status.totals else None,
        epochs=epochs,
        num_epochs_left_out=max(0, len(numbers) - MAX_EPOCHS),
        prompt_tokens=tuple(sample.prompt_tokens),
        generated_tokens=tuple(sample.generated_tokens),
        dead_samples={reason: tuple(found) for reason, found in sample.dead.items()},
        num_sampled_rows=len(sample.prompt_tokens),
        num_sampled_parts=min(len(parts), MAX_FILES),
        num_parts=len(parts),
        num_sampled_dead_files=min(len(dead_files), MAX_FILES),
        num_dead_files=len(dead_files),
        num_damaged_parts=sample.num_damaged,
    )


def spread(items: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most so many of them, evenly over all, in order."""
    if len(items) <= most:
        return list(items)
    return [items[at * len(items) // most] for at in range(most)]


class _Sample:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.prompt_tokens: list[int] = []
        self.generated_tokens: list[int] = []
        self.dead: dict[str, list[DeadSample]] = {}
        self.num_damaged = 0

    def take_predictions(self, file: dict[str, Any]) -> None:
        for record in self._records(file, PREDICTION_KEYS):
            generated = record["num_generated_tokens"]
            self.prompt_tokens.append(int(record["num_prompt_tokens"]))
            self.generated_tokens += generated if isinstance(generated, list) else [generated]

    def take_dead(self, file: dict[str, Any]) -> None:
        for record in self._records(file, DEAD_KEYS):
            found = self.dead.setdefault(str(record["reason"]), [])
            if len(found) < MAX_DEAD_OF_A_REASON:
                place = f"{record['path']}, line {record['row'][1]}"
                found.append(DeadSample(place, str(record["detail"])))

    def _records(self, file: dict[str, Any], keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        num_bytes = 0
        try:
            size_bytes = self._store.stat(file["name"]).size_bytes
            for line in read_lines(self._store, file["name"], size_bytes):
                yield _record_of(line, keys)
                num_bytes += len(line)
                if num_bytes >= MAX_SAMPLE_BYTES:
                    return
        except (ValueError, TypeError, ObjectMissing):
            self.num_damaged += 1


def _record_of(line: bytes, keys: tuple[str, ...]) -> dict[str, Any]:
    """The record of a published line. Raises ValueError or TypeError for anything else."""
    record = read_record(line)
    if tuple(record)[: len(keys)] != keys:
        raise ValueError(f"its keys are {list(record)}, wanted {list(keys)}")
    return record
