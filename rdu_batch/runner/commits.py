"""Commit records: the point at which a shard's outcomes become final.

Promises: there is at most one commit record a shard, whatever races; what it names was whole in
the store before the record existed; publishing from it may be repeated at will.
Does not: decide which outcomes a shard has (see ``sealing.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rdu_batch.errors import OutputMismatch
from rdu_batch.job.plan import Plan
from rdu_batch.job.run_paths import dead_name, part_name
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.part_formats import suffix_of
from rdu_batch.runner.run_layout import COMMITS_FOLDER, commit_record, numbers_in
from rdu_batch.storage.store import Store

FORMAT_VERSION = 2


@dataclass(frozen=True)
class SealedFile:
    """One file of a sealed shard: where it lies under ``_run/``, and what is in it."""

    name: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class CommitRecord:
    """A shard's final state. ``attempt`` is unique to who made it."""

    shard: int
    plan_digest: str
    attempt: str
    part: SealedFile
    dead: SealedFile | None
    totals: Totals
    #: The row digests of the predictions, in their order (see ``row_digests.py``); None where no
    #: prediction has one.
    row_digests: SealedFile | None = None

    def to_bytes(self) -> bytes:
        """The record as one JSON object and a newline."""
        document = {
            "version": FORMAT_VERSION,
            "shard": self.shard,
            "plan_digest": self.plan_digest,
            "attempt": self.attempt,
            "part": vars(self.part),
            "dead": vars(self.dead) if self.dead else None,
            "totals": self.totals.to_json(),
            "row_digests": vars(self.row_digests) if self.row_digests else None,
        }
        return json.dumps(document).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> CommitRecord:
        """Read a record back.

        Raises:
            OutputMismatch: another format version wrote it, or it is damaged. Ends the job.
        """
        try:
            document: dict[str, Any] = json.loads(content)
            version = document["version"]
            if version == FORMAT_VERSION:
                return cls(
                    shard=document["shard"],
                    plan_digest=document["plan_digest"],
                    attempt=document["attempt"],
                    part=SealedFile(**document["part"]),
                    dead=_file_of(document["dead"]),
                    totals=Totals.from_json(document["totals"]),
                    row_digests=_file_of(document["row_digests"]),
                )
        except (ValueError, TypeError, KeyError) as error:
            raise OutputMismatch(
                f"a commit record is damaged ({content[:40]!r}...): {error!r}. Delete that object "
                "under _run/commits/ to have its shard run again, or choose another output."
            ) from error
        raise OutputMismatch(
            f"a commit record has format version {version!r}, this program reads {FORMAT_VERSION}. "
            "Finish the job with the version that began it, or choose another output."
        )


def _file_of(document: dict[str, Any] | None) -> SealedFile | None:
    return SealedFile(**document) if document else None


def create_commit(store: Store, record: CommitRecord) -> CommitRecord:
    """Commit a shard, or learn who did: returns the record that now stands, ours or another's.

    The attempt in the record makes its bytes ours alone, so a lost reply is no lost win.
    """
    stands = store.create_or_read(commit_record(record.shard), record.to_bytes())
    return CommitRecord.from_bytes(stands)


def committed_shards(store: Store) -> list[int]:
    """Indexes of all shards that have a commit record, ascending; one listing."""
    return numbers_in(store.list_names(COMMITS_FOLDER))


def read_commits(store: Store, shard_indexes: list[int]) -> Iterator[CommitRecord]:
    """The commit records of these shards, one at a time."""
    for shard_index in shard_indexes:
        yield CommitRecord.from_bytes(store.read(commit_record(shard_index)))


def published_names(record: CommitRecord, plan: Plan) -> list[tuple[SealedFile, str]]:
    """Each sealed file of a commit record with the stable name it is published under."""
    names = [(record.part, part_name(record.shard, plan.num_shards, suffix_of(plan)))]
    if record.dead is not None:
        names.append((record.dead, dead_name(record.shard, plan.num_shards)))
    return names


def publish(store: Store, record: CommitRecord, plan: Plan) -> None:
    """Put a committed shard's files under their stable names; repeating it changes no byte."""
    for sealed_file, name in published_names(record, plan):
        store.copy(sealed_file.name, name)
