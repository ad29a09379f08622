"""Gc: removes from ``_run/`` what no commit record names.

A killed worker leaves segments of a shard that another went on with, a late one leaves sealed files
of a shard that another committed first. Nobody reads them; they only cost room.

Why this is safe at any time, also while a driver runs: gc touches only shards that have a commit
record, and a commit record is created once and never changes. So what it does not name now, it
will never name. Segments of a committed shard serve nobody: resuming, sealing and publishing go by
the record (see ``fencing.py``, "deleting segments"). A worker that puts or deletes the same objects
at the same time takes nothing away and adds only what a later gc removes; deleting twice is fine.
Shards without a record are not even looked at, so a resume finds all its segments. With
``output.single_writer`` the store does not keep records once by itself: there, gc counts as a run,
and no other may be at work.

Sealed files that a record names are kept: a killed driver may not have published them yet, and they
repair a damaged part and tell which of its rows changed. ``remove_sealed`` gives that up for half
of the room: only of a finished output, and only where the published file, read whole, has the
record's sha256.

Objects of epochs, results and attempts stay: they are few and small, and tell what happened.

Everything is looked at before anything is removed: a plan or record that this program cannot read
stops it with nothing removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rdu_batch.dataset.planning import load_plan
from rdu_batch.errors import OutputMismatch, VerifyFailed
from rdu_batch.job.plan import Plan
from rdu_batch.runner.commits import (
    CommitRecord,
    committed_shards,
    published_names,
    read_commits,
)
from rdu_batch.runner.manifest import read_success
from rdu_batch.runner.published import sha256_of
from rdu_batch.runner.run_layout import (
    SEALED_FOLDER,
    SEGMENTS_FOLDER,
    SegmentName,
    shard_of_sealed,
)
from rdu_batch.runner.sealing import check_plan
from rdu_batch.storage.store import Store


@dataclass
class Removed:
    """What was removed, or would be: objects and bytes of each kind."""

    objects: dict[str, int] = field(default_factory=dict)
    num_bytes: dict[str, int] = field(default_factory=dict)
    #: Published files that differ from their commit record; their sealed copies were kept.
    damaged: list[str] = field(default_factory=list)

    @property
    def exit(self) -> int:
        """0, or 7 where a published file is damaged."""
        return VerifyFailed.exit_code if self.damaged else 0

    def add(self, kind: str, size_bytes: int) -> None:
        """Count one object."""
        self.objects[kind] = self.objects.get(kind, 0) + 1
        self.num_bytes[kind] = self.num_bytes.get(kind, 0) + size_bytes

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the counts of each kind and of all."""
        return {
            "objects": sum(self.objects.values()),
            "bytes": sum(self.num_bytes.values()),
            "objects_by_kind": self.objects,
            "bytes_by_kind": self.num_bytes,
            "damaged": self.damaged,
            "exit": self.exit,
        }


@dataclass(frozen=True)
class Doomed:
    """An object to remove, and what it is: ``segments``, ``sealed_unnamed`` or ``sealed``."""

    kind: str
    name: str
    size_bytes: int


def collect_garbage(store: Store, *, remove_sealed: bool = False, dry_run: bool = False) -> Removed:
    """Remove what no commit record names; may be repeated and interrupted at will.

    Args:
        store: the output.
        remove_sealed: also remove the sealed copies of published files.
        dry_run: remove nothing, only say what would be removed.

    Raises:
        OutputMismatch: there is no job here, its plan or a commit record cannot be read by this
            program or is of another job, or ``remove_sealed`` and the job is unfinished. Nothing
            was removed (exit 3).
        StoreError: the store failed; a repetition goes on.
    """
    plan = _plan_of(store, remove_sealed=remove_sealed)
    names_by_shard: dict[int, frozenset[str]] = {}
    for record in read_commits(store, committed_shards(store)):
        check_plan(store, record, plan)
        names_by_shard[record.shard] = _sealed_names(record)
    doomed = choose_garbage(
        _listed(store, SEGMENTS_FOLDER), _listed(store, SEALED_FOLDER), names_by_shard
    )
    removed = Removed()
    for entry in doomed:
        _remove(store, entry, removed, dry_run=dry_run)
    if remove_sealed:
        _remove_sealed(store, plan, removed, dry_run=dry_run)
    return removed


def choose_garbage(
    segments: Iterable[tuple[str, int]],
    sealed: Iterable[tuple[str, int]],
    names_by_shard: Mapping[int, frozenset[str]],
) -> list[Doomed]:
    """What to remove of these objects; pure.

    Args:
        segments: name and size in bytes of everything in the folder of segments.
        sealed: the same of the folder of sealed files.
        names_by_shard: of each shard that has a commit record, the sealed files that it names.

    Returns:
        Segments and sealed files of those shards that no record names. What is neither, by its
        name, is left alone.
    """
    doomed = []
    for name, size_bytes in segments:
        segment = SegmentName.parse(name)
        if segment is not None and segment.shard in names_by_shard:
            doomed.append(Doomed("segments", name, size_bytes))
    for name, size_bytes in sealed:
        shard = shard_of_sealed(name)
        named = None if shard is None else names_by_shard.get(shard)
        if named is not None and name not in named:
            doomed.append(Doomed("sealed_unnamed", name, size_bytes))
    return doomed


def _plan_of(store: Store, *, remove_sealed: bool) -> Plan:
    plan = load_plan(store)
    if plan is None:
        raise OutputMismatch(
            f"{store.url}: there is no _run/plan.json, so no job works here and nothing was "
            "removed. Correct the URL; a copy without its _run folder has nothing to remove."
        )
    if remove_sealed and read_success(store) is None:
        raise OutputMismatch(
            f"{store.url} is unfinished: its sealed files may not be published yet, so nothing was "
            "removed. Run the job to its end first, or leave --sealed out."
        )
    return plan


def _listed(store: Store, folder: str) -> list[tuple[str, int]]:
    return [(name, stat.size_bytes) for name, stat in store.list_objects(folder, recursive=True)]


def _sealed_names(record: CommitRecord) -> frozenset[str]:
    return frozenset(file.name for file in (record.part, record.dead) if file is not None)


def _remove(store: Store, entry: Doomed, removed: Removed, *, dry_run: bool) -> None:
    if not dry_run:
        store.delete(entry.name)
    removed.add(entry.kind, entry.size_bytes)


def _remove_sealed(store: Store, plan: Plan, removed: Removed, *, dry_run: bool) -> None:
    """Remove the sealed copy of every published file that is as its commit record says."""
    present = dict(_listed(store, SEALED_FOLDER))
    for record in read_commits(store, committed_shards(store)):
        for file, published in published_names(record, plan):
            if file.name not in present:
                continue
            if sha256_of(store, published) != file.sha256:
                removed.damaged.append(published)
                continue
            entry = Doomed("sealed", file.name, present[file.name])
            _remove(store, entry, removed, dry_run=dry_run)
