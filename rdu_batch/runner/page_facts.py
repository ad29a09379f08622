"""What the report page needs of an output, read through its store alone; nothing is written.

Promises: rows are sampled from the beginnings of a bounded number of files, a bounded number of
bytes of each. A damaged or missing file is counted, never an error: ``verify`` judges.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from rdu_batch.errors import ObjectMissing, VerifyFailed
from rdu_batch.job.records import DEAD_KEYS, PREDICTION_KEYS
from rdu_batch.job.run_paths import PLAN, SUCCESS
from rdu_batch.report.page_values import DeadSample, PageFacts
from rdu_batch.runner.commits import committed_shards, read_commits
from rdu_batch.runner.epochs import read_object, read_owner
from rdu_batch.runner.manifest import read_manifest
from rdu_batch.runner.process_mark import is_gone
from rdu_batch.runner.published import read_lines, read_record
from rdu_batch.runner.run_layout import (
    DRIVERS_FOLDER,
    RESULTS_FOLDER,
    epoch_result,
    numbers_in,
)
from rdu_batch.runner.status import read_status
from rdu_batch.storage.store import Store

#: Files of each kind that are looked into, spread over all shards.
MAX_FILES: Final = 32
#: Bytes of lines taken of each; the line that crosses it is the last.
MAX_SAMPLE_BYTES: Final = 256 << 10
MAX_EPOCHS: Final = 50
MAX_DEAD_OF_A_REASON: Final = 3
#: What a run that reported nothing is said to be, by what its driver is found to be.
KILLED: Final = "killed"
OVERTAKEN: Final = "killed or cut off"
NO_RESULT: Final = "no result yet: it runs, or was killed"

_Item = TypeVar("_Item")


def read_page_facts(store: Store, now_s: Callable[[], float] = time.time) -> PageFacts:
    """Look at an output.

    Args:
        store: the output.
        now_s: seconds since 1970.

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
    files = _finished_files(store) if status.state == "complete" else _sealed_files(store)
    sample = _Sample(store)
    for part in files.parts:
        sample.take_predictions(part)
    for file in files.dead:
        sample.take_dead(file)
    epochs, num_left_out = _epochs(store)
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
        num_epochs_left_out=num_left_out,
        prompt_tokens=tuple(sample.prompt_tokens),
        generated_tokens=tuple(sample.generated_tokens),
        dead_samples={reason: tuple(found) for reason, found in sample.dead.items()},
        num_sampled_rows=len(sample.prompt_tokens),
        num_sampled_parts=len(files.parts),
        num_parts=files.num_parts,
        num_sampled_dead_files=len(files.dead),
        num_dead_files=files.num_dead,
        num_damaged_parts=sample.num_damaged,
        looked_s=now_s(),
    )


@dataclass(frozen=True)
class _Files:
    """Names of the files to be looked into, and how many there are."""

    parts: list[str]
    dead: list[str]
    num_parts: int
    num_dead: int


def _finished_files(store: Store) -> _Files:
    parts = read_manifest(store)[0]["parts"]
    dead = [part["dead"] for part in parts if part["dead"]]
    sampled = [[str(file["name"]) for file in spread(of, MAX_FILES)] for of in (parts, dead)]
    return _Files(sampled[0], sampled[1], len(parts), len(dead))


def _sealed_files(store: Store) -> _Files:
    """Of a job that is not finished: a commit record may stand before its part is published."""
    shards = committed_shards(store)
    records = list(read_commits(store, spread(shards, MAX_FILES)))
    dead = [one.dead.name for one in records if one.dead]
    return _Files([one.part.name for one in records], dead, len(shards), len(dead))


def _epochs(store: Store) -> tuple[tuple[dict[str, Any], ...], int]:
    """What the last runs reported, killed ones among them; and how many earlier ones there are."""
    reported = set(numbers_in(store.list_names(RESULTS_FOLDER)))
    numbers = sorted(reported | set(numbers_in(store.list_names(DRIVERS_FOLDER))))
    epochs = []
    for number in numbers[-MAX_EPOCHS:]:
        if number in reported:
            found = read_object(store.read(epoch_result(number)))
        else:
            found = {"state": _without_result(store, number, is_last=number == numbers[-1])}
        epochs.append({**found, "epoch": number})
    return tuple(epochs), max(0, len(numbers) - MAX_EPOCHS)


def _without_result(store: Store, epoch: int, *, is_last: bool) -> str:
    owner = read_owner(store, epoch)
    if owner is not None and owner.process is not None and is_gone(owner.process):
        return KILLED
    # From another machine only a later run tells, which found that it did not live.
    return NO_RESULT if is_last else OVERTAKEN


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
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

    def take_predictions(self, name: str) -> None:
        for record in self._records(name, PREDICTION_KEYS):
            generated = record["num_generated_tokens"]
            self.prompt_tokens.append(int(record["num_prompt_tokens"]))
            self.generated_tokens += generated if isinstance(generated, list) else [generated]

    def take_dead(self, name: str) -> None:
        for record in self._records(name, DEAD_KEYS):
            found = self.dead.setdefault(str(record["reason"]), [])
            if len(found) < MAX_DEAD_OF_A_REASON:
                place = f"{record['path']}, line {record['row'][1]}"
                if record["id"] is not None:
                    place += f", id {record['id']}"
                found.append(DeadSample(place, str(record["detail"])))

    def _records(self, name: str, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        num_bytes = 0
        try:
            size_bytes = self._store.stat(name).size_bytes
            for line in read_lines(self._store, name, size_bytes):
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
