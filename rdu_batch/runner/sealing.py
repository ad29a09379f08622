"""Sealing: a shard whose rows all have an outcome becomes two files and a commit record.

The files are spooled to local disk, put whole under names of this attempt alone, then the commit
record is created once, then the files are published under their stable names. A crash between
any two steps leaves either an uncommitted shard, sealed again from its segments, or a committed
one, published again from its record.
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from rdu_batch.errors import OutputMismatch, StoreError
from rdu_batch.job.plan import Plan, Shard
from rdu_batch.runner.commits import CommitRecord, SealedFile, create_commit, publish
from rdu_batch.runner.outcomes import Outcome, Totals, published_lines
from rdu_batch.runner.part_formats import format_of, pack, suffix_of
from rdu_batch.runner.run_layout import row_digests, sealed
from rdu_batch.storage.store import Store

#: Of a spool, read at a time to be sealed.
_SEAL_BYTES = 256 << 10


class LineSpool:
    """Lines written to a local file, with the row count, size and sha256 of what was written."""

    def __init__(self, path: Path) -> None:
        """Make the file.

        Raises:
            StoreError: it cannot be made. Ends the job.
        """
        self.path = path
        self.num_rows = 0
        self.num_bytes = 0
        self._sha256 = hashlib.sha256()
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as error:
            raise no_scratch(path, error) from error

    def write(self, line: bytes) -> None:
        """Add one line, its newline included.

        Raises:
            StoreError: the local disk failed or is full. Ends the job.
        """
        self._write(line)
        self.num_rows += 1

    def write_all(self, lines: list[bytes]) -> None:
        """Add lines, each with its newline: many at once cost less than one by one.

        Raises:
            StoreError: the local disk failed or is full. Ends the job.
        """
        self.write_block(b"".join(lines), len(lines))

    def write_block(self, content: bytes, num_rows: int) -> None:
        """Add what so many rows come to.

        Raises:
            StoreError: the local disk failed or is full. Ends the job.
        """
        self._write(content)
        self.num_rows += num_rows

    def _write(self, content: bytes) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            raise no_scratch(self.path, error) from error
        self._sha256.update(content)
        self.num_bytes += len(content)

    @property
    def sha256(self) -> str:
        """Hex digest of all bytes so far."""
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Flush to the operating system; the file stays."""
        try:
            self._file.close()
        except OSError as error:
            raise no_scratch(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def no_scratch(path: Path, error: OSError) -> StoreError:
    """What to raise where a file of local disk fails."""
    return StoreError(
        f"the scratch file {path} cannot be written: {error.strerror}. Free some space there, "
        "or let TMPDIR name a folder with more."
    )


def seal_shard(
    store: Store, plan: Plan, shard: Shard, outcomes: Iterable[Outcome | None]
) -> CommitRecord | list[tuple[int, int]]:
    """Seal, commit and publish a shard from one outcome a row, in row order.

    Returns:
        The commit record that stands (another attempt's, if it was first), or, when rows have no
        outcome, their ranges; nothing is written to the store then.

    Raises:
        OutputMismatch: the commit record that stands is of another plan. Ends the job.
        StoreError: the store failed. Ends the job.
    """
    totals = Totals()
    missing: list[tuple[int, int]] = []
    with _ShardFiles() as files:
        for row, outcome in enumerate(outcomes, start=shard.first_row):
            if outcome is None:
                _extend(missing, row)
                continue
            totals.count(outcome)
            if outcome.is_prediction:
                files.part.write(outcome.line)
                files.add_digests([outcome.row_digest])
            else:
                files.dead.write(outcome.line)
        return missing or files.seal(store, plan, shard, totals)


def seal_spool(store: Store, plan: Plan, shard: Shard, spool: Path, totals: Totals) -> CommitRecord:
    """Seal, commit and publish a shard whose every row was just written to a spool, and counted.

    Args:
        store: the output.
        plan: of the job.
        shard: of the plan.
        spool: the closed file of this process's own outcome lines, one a row.
        totals: of them.

    Raises:
        OutputMismatch: the commit record that stands is of another plan. Ends the job.
        StoreError: the store failed. Ends the job.
    """
    with _ShardFiles() as files, spool.open("rb") as lines:
        while some := lines.readlines(_SEAL_BYTES):
            predictions, letters, digests = published_lines(some)
            files.part.write_all(predictions)
            files.add_digests([digest.decode("ascii") for digest in digests])
            files.dead.write_all(letters)
        return files.seal(store, plan, shard, totals)


class _ShardFiles:
    """The files of a shard while they are made, on local disk."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rdu-batch-seal-")
        self.part = LineSpool(Path(self._folder.name, "part"))
        self.dead = LineSpool(Path(self._folder.name, "dead"))
        self._digests = LineSpool(Path(self._folder.name, "row_digests"))
        self._has_digests = False

    def add_digests(self, row_digests: list[str]) -> None:
        """Of predictions, in their order."""
        content = bytes.fromhex("".join(row_digests))
        self._has_digests = self._has_digests or any(content)
        self._digests.write_block(content, len(row_digests))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.part.close()
        self.dead.close()
        self._digests.close()
        self._folder.cleanup()

    def seal(self, store: Store, plan: Plan, shard: Shard, totals: Totals) -> CommitRecord:
        self.part.close()
        self.dead.close()
        self._digests.close()
        digests = self._digests if self._has_digests else None
        record = _put_and_commit(store, plan, shard, self.part, self.dead, digests, totals)
        check_plan(store, record, plan)
        publish(store, record, plan)
        return record


def check_plan(store: Store, record: CommitRecord, plan: Plan) -> None:
    """Check that a commit record is of this plan, before anything is published from it.

    Raises:
        OutputMismatch: it is not. Ends the job.
    """
    if record.plan_digest != plan.digest:
        raise OutputMismatch(
            f"{store.url}: shard {record.shard} was committed under the plan {record.plan_digest}, "
            f"not under {plan.digest}, which this run follows: the output was emptied or its plan "
            "was lost. Choose another output.url."
        )


def _put_and_commit(
    store: Store,
    plan: Plan,
    shard: Shard,
    part: LineSpool,
    dead: LineSpool,
    digests: LineSpool | None,
    totals: Totals,
) -> CommitRecord:
    attempt = secrets.token_hex(8)
    record = CommitRecord(
        shard=shard.index,
        plan_digest=plan.digest,
        attempt=attempt,
        part=_put_part(store, plan, part, sealed(shard.index, "part", attempt, suffix_of(plan))),
        dead=_put_sealed(store, dead, sealed(shard.index, "dead", attempt))
        if dead.num_rows
        else None,
        totals=totals,
        row_digests=_put_sealed(store, digests, row_digests(shard.index, digests.sha256))
        if digests
        else None,
    )
    return create_commit(store, record)


def _put_part(store: Store, plan: Plan, lines: LineSpool, name: str) -> SealedFile:
    """Put the part of a spool of prediction lines, in the plan's format."""
    if format_of(plan) == "jsonl":
        return _put_sealed(store, lines, name)
    packed = lines.path.with_suffix(".packed")
    try:
        pack(lines.path, packed, plan)
        with packed.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = packed.stat().st_size
    except OSError as error:
        raise no_scratch(packed, error) from error
    store.put_file(name, str(packed))
    return SealedFile(name, lines.num_rows, num_bytes, sha256)


def _put_sealed(store: Store, spool: LineSpool, name: str) -> SealedFile:
    store.put_file(name, str(spool.path))
    return SealedFile(name, spool.num_rows, spool.num_bytes, spool.sha256)


def _extend(ranges: list[tuple[int, int]], row: int) -> None:
    if ranges and ranges[-1][1] == row:
        ranges[-1] = (ranges[-1][0], row + 1)
    else:
        ranges.append((row, row + 1))
