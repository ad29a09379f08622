"""Verify: re-read a finished output and find what differs from what its manifest promises.

Works on the output alone, wherever it was moved to: manifest and parts. Where ``_run/`` is still
there, the sealed copies under it tell which row of a damaged part changed.

Promises: every part and dead letter file is read whole and hashed; every row of every shard is
found exactly once, in order; every total is counted again. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rdu_batch.errors import ObjectMissing, OutputMismatch, VerifyFailed
from rdu_batch.job.records import row_key
from rdu_batch.job.run_paths import MANIFEST, SUCCESS
from rdu_batch.runner.commits import CommitRecord
from rdu_batch.runner.manifest import read_manifest, read_success
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.published import outcome_of, read_lines, sha256_of
from rdu_batch.runner.run_layout import commit_record
from rdu_batch.runner.verify_rows import RowKey, RowsOfInputs, ShardRows
from rdu_batch.storage.store import Store

#: A report names at most this many problems of one shard.
MAX_PROBLEMS_PER_SHARD = 20


@dataclass
class Verification:
    """What verify found."""

    output: str
    rows: int = 0
    shards: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """True if nothing differs."""
        return not self.problems


def verify_output(store: Store) -> Verification:
    """Check a finished output.

    Raises:
        VerifyFailed: there is no finished output here, or its manifest cannot be read (exit 7).
        StoreError: the store failed.
    """
    manifest = read_finished(store)
    found = Verification(store.url)
    totals = Totals()
    rows = RowsOfInputs(manifest["inputs"])
    next_row = 0
    for entry in manifest["parts"]:
        shard = _ShardCheck(store, entry, rows, next_row)
        found.problems.extend(shard.check())
        totals.add(shard.totals)
        next_row += shard.num_rows
        found.shards += 1
    found.rows = totals.rows
    found.problems.extend(_check_totals(totals, manifest, next_row))
    found.problems.extend(_check_strangers(store, manifest))
    return found


def read_finished(store: Store) -> dict[str, Any]:
    """The manifest of a finished output, whose every byte is what ``_SUCCESS`` says it is.

    Raises:
        VerifyFailed: there is no finished output here, or its manifest is damaged (exit 7).
    """
    try:
        manifest, sha256 = read_manifest(store)
    except ObjectMissing as error:
        raise VerifyFailed(
            f"{store.url}: there is no {MANIFEST}, so there is no finished output to verify. "
            "Run the job to its end, or correct the URL."
        ) from error
    success = read_success(store)
    if success is None:
        raise VerifyFailed(
            f"{store.url}: there is a {MANIFEST} but no {SUCCESS}: the job was interrupted just "
            "before its end, or the file was lost. Run the job again; it will finish at once."
        )
    if sha256 != success.manifest_sha256:
        raise VerifyFailed(
            f"{store.join(MANIFEST)} is not what was written: its sha256 is {sha256}, {SUCCESS} "
            f"says {success.manifest_sha256}. One of the two is damaged; nothing else was checked. "
            f"Delete both and run the job again: it writes them anew from _run/."
        )
    if manifest["job_digest"] != success.job_digest:
        raise VerifyFailed(
            f"{store.join(SUCCESS)} is damaged: its job_digest is {success.job_digest}, the "
            f"manifest's is {manifest['job_digest']}. Delete it and run the job again."
        )
    return manifest


class _ShardCheck:
    def __init__(
        self, store: Store, entry: dict[str, Any], rows: RowsOfInputs, first_row: int
    ) -> None:
        self._store = store
        self._entry = entry
        self._rows = rows
        self._first_row = first_row
        self._dead = entry["dead"]
        self.num_rows = int(entry["rows"]) + (int(self._dead["rows"]) if self._dead else 0)
        self.totals = Totals()
        self._sealed = _sealed_names(store, int(entry["shard"]))

    def check(self) -> list[str]:
        """Problems of this shard, at most ``MAX_PROBLEMS_PER_SHARD``."""
        problems: list[str] = []
        keys: list[RowKey] = []
        for kind, entry in (("part", self._entry), ("dead", self._dead)):
            if entry:
                file = _FileCheck(self._store, entry, self._sealed.get(kind), kind, self.totals)
                problems.extend(file.check())
                keys.extend(file.keys)
        problems.extend(self._check_rows(keys))
        if len(problems) > MAX_PROBLEMS_PER_SHARD:
            more = len(problems) - MAX_PROBLEMS_PER_SHARD
            problems = [*problems[:MAX_PROBLEMS_PER_SHARD], f"and {more} more of this shard"]
        return problems

    def _check_rows(self, keys: list[RowKey]) -> Iterator[str]:
        """Every row of the shard once."""
        name = f"shard {self._entry['shard']}"
        found = sorted(keys)
        for before, after in pairwise(found):
            if before == after:
                yield f"{name}: row {list(after)} is there more than once"
        found = sorted(set(keys))
        rows = ShardRows(self._rows, self._first_row, self.num_rows)
        if not rows.has_each_once(found):
            known = self._sealed_keys()
            is_known = known is not None and rows.has_each_once(known)
            for problem in rows.differences(found, known if is_known else None):
                yield f"{name}: {problem}"

    def _sealed_keys(self) -> list[RowKey] | None:
        """The rows of the sealed copies, ascending; None where these are gone or damaged."""
        keys: list[RowKey] = []
        try:
            for name in self._sealed.values():
                size_bytes = self._store.stat(name).size_bytes
                keys.extend(map(row_key, read_lines(self._store, name, size_bytes)))
        except (ObjectMissing, ValueError):
            return None
        return sorted(keys)


class _FileCheck:
    """One ``part-*`` or ``dead-*`` file against its entry in the manifest."""

    def __init__(
        self, store: Store, entry: dict[str, Any], sealed: str | None, kind: str, totals: Totals
    ) -> None:
        self._store = store
        self._name = str(entry["name"])
        self._entry = entry
        self._sealed = sealed
        self._is_part = kind == "part"
        self._totals = totals
        self.keys: list[RowKey] = []
        self._problems: list[str] = []

    def check(self) -> list[str]:
        sha256 = sha256_of(self._store, self._name)
        if sha256 is None:
            return [f"{self._name}: the file is missing"]
        size_bytes = self._store.stat(self._name).size_bytes
        number = 0
        try:
            for number, line in enumerate(read_lines(self._store, self._name, size_bytes), start=1):
                self._check_line(number, line)
        except ValueError as error:
            self._problems.append(f"{self._name}: unreadable after {number} rows: {error}")
        if number != self._entry["rows"]:
            self._problems.append(f"{self._name}: has {number} rows, wanted {self._entry['rows']}")
        if sha256 != self._entry["sha256"]:
            self._problems.append(self._where_changed(size_bytes, sha256))
        return self._problems

    def _check_line(self, number: int, line: bytes) -> None:
        try:
            key = row_key(line)
            self._totals.count(outcome_of(line, is_prediction=self._is_part))
        except (ValueError, KeyError, TypeError) as error:
            self._problems.append(f"{self._name}: line {number} is damaged: {error}")
            return
        if self.keys and key <= self.keys[-1]:
            self._problems.append(f"{self._name}: line {number}: row {list(key)} is out of order")
        self.keys.append(key)

    def _where_changed(self, size_bytes: int, sha256: str) -> str:
        problem = f"{self._name}: sha256 is {sha256}, wanted {self._entry['sha256']}"
        if self._sealed is None or not self._store.exists(self._sealed):
            return f"{problem}; which row changed cannot be told without {self._name}'s sealed copy"
        sealed_bytes = self._store.stat(self._sealed).size_bytes
        ours = read_lines(self._store, self._name, size_bytes)
        sealed = read_lines(self._store, self._sealed, sealed_bytes)
        try:
            for number, line in enumerate(sealed, start=1):
                if next(ours, b"") != line:
                    row = list(row_key(line))
                    return f"{problem}; the first line that changed is {number}, row {row}"
            is_longer = next(ours, None) is not None
        except ValueError:
            return f"{problem}; the file cannot be read to its end"
        return f"{problem}; " + (
            "lines were added after the last row" if is_longer else "its rows are all there"
        )


def _sealed_names(store: Store, shard: int) -> dict[str, str]:
    """Names of the shard's sealed copies, where ``_run/`` still has them."""
    name = commit_record(shard)
    try:
        record = CommitRecord.from_bytes(store.read(name))
    except (ObjectMissing, OutputMismatch):
        return {}
    names = {"part": record.part.name}
    if record.dead is not None:
        names["dead"] = record.dead.name
    return names


def _check_totals(totals: Totals, manifest: dict[str, Any], num_rows: int) -> Iterator[str]:
    wanted = manifest["totals"]
    if num_rows != wanted["rows"]:
        yield f"{MANIFEST}: its parts have {num_rows} rows, its totals say {wanted['rows']}"
    for name, found in totals.to_json().items():
        if found != wanted[name]:
            yield f"{MANIFEST}: totals.{name} is {wanted[name]}, counted {found}"


def _check_strangers(store: Store, manifest: dict[str, Any]) -> Iterator[str]:
    """A ``part-*`` or ``dead-*`` file that the manifest does not name would be read by a glob."""
    known = {str(entry["name"]) for entry in manifest["parts"]}
    known |= {str(entry["dead"]["name"]) for entry in manifest["parts"] if entry["dead"]}
    for name in store.list_names():
        if name.startswith(("part-", "dead-")) and name not in known:
            yield f"{name}: the manifest does not know this file"
