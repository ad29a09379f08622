"""What a run with ``input.since`` begins with: all that an earlier output holds of its rows.

The output of a job that runs every night over a growing dataset is whole each night, but only what
is new is run. Before its driver looks back, it finds in its output

- a plan over today's inputs that names the parent (``job.plan.Parent``);
- the parent's canary, so that only machines that compute the same numbers take part;
- each shard that the parent has with the very same rows: its files, byte for byte, committed;
- for the others, segments of the rows that are taken over: those of unchanged files, predictions
  and dead letters alike, and, of the rest, greedy predictions of rows with the same content.

The rows that are left to run are those that are new. Every object here has bytes that follow from
the plan and the parent alone, so that seeding may be repeated; ``_run/reused.json`` says that it
came to its end. Memory: the list of input files, and what is taken over by content in a group of
shards.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.dataset.planning import load_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import InputError, ObjectMissing, OutputMismatch, UsageError
from rdu_batch.job.plan import Parent, diff_decides
from rdu_batch.job.row_digest import NO_ROW_DIGEST, ROW_DIGEST_BYTES, row_digest_of
from rdu_batch.report.reused import Reused
from rdu_batch.runner.commits import committed_shards
from rdu_batch.runner.kept_rows import kept_segments
from rdu_batch.runner.manifest import read_success
from rdu_batch.runner.parent_rows import ParentRows, moved_to
from rdu_batch.runner.parents import FinishedOutput, check_parent
from rdu_batch.runner.run_layout import CANARY, REUSED
from rdu_batch.runner.unchanged import SameRows, cut_to, gaps, is_same_shard, same_rows
from rdu_batch.storage.store import open_store

if TYPE_CHECKING:
    from rdu_batch.job.plan import Plan, Shard
    from rdu_batch.runner.outcomes import Outcome
    from rdu_batch.storage.store import Store

#: Rows that are looked for by content at a time; each time all digests of the parent are read.
_GROUP_ROWS: Final = 1 << 18
#: What may differ between a job and its parent: which rows there are, how they are cut and kept.
_FREE: Final = {"input": ("urls", "limit"), "output": ("format", "rows_per_shard")}


@dataclass(frozen=True)
class DeltaSeed:
    """A finished parent of which all is taken over that still holds."""

    finished: FinishedOutput

    @property
    def url(self) -> str:
        """Of the parent."""
        return self.finished.store.url

    @property
    def parent(self) -> Parent:
        """What the new plan and manifest say of the parent."""
        return Parent(self.finished.manifest_sha256, None)

    def check_job(self, decides: dict[str, Any]) -> None:
        """Check that the parent's predictions are those that this job would make.

        Raises:
            OutputMismatch: they are not; the message lists what differs. Ends the job.
        """
        mine, theirs = _without_rows(decides), _without_rows(self.finished.plan.decides)
        if differences := "\n".join(f"  {line}" for line in diff_decides(theirs, mine)):
            raise OutputMismatch(
                f"input.since: {self.finished.store.url} was made by another job than this one, so "
                f"nothing of it can be taken over. What differs (there -> here):\n{differences}\n"
                "Take the change back, or leave input.since out to run all rows anew"
            )

    def seed(self, store: Store, plan: Plan, confirm: Callable[[], None]) -> None:
        """Make durable in the new output what is taken over; ``reused_of`` says what that was.

        Args:
            store: the new output.
            plan: its plan.
            confirm: called before each shard; what it raises ends the seeding.

        Raises:
            VerifyFailed: the parent is damaged. Ends the job (exit 7).
            OutputMismatch: the parent's run folder is incomplete. Ends the job.
            InputError: an input changed since it was pinned. Ends the job.
            StoreError: a store failed. Ends the job.
        """
        if store.exists(REUSED):
            return
        store.create_or_read(CANARY, self.finished.read_of_run(CANARY))
        with closing(ParentRows(self.finished)) as rows:
            seeding = _Seeding(self.finished, rows, store, plan)
            for group in seeding.groups():
                seeding.take_over(group, confirm)
        store.put_whole(REUSED, json.dumps(vars(seeding.reused())).encode() + b"\n")


def reused_of(store: Store) -> Reused | None:
    """What an output took over of its parent; None if it has none, or is not seeded yet."""
    try:
        return Reused(**json.loads(store.read(REUSED)))
    except ObjectMissing:
        return None
    except (ValueError, TypeError) as error:
        raise OutputMismatch(
            f"{store.join(REUSED)} is damaged: {error}. Delete it; the next run writes it anew."
        ) from error


def open_since(url: str, output: Store) -> DeltaSeed:
    """Open the output that ``input.since`` names.

    Args:
        url: what it names.
        output: of the job.

    Raises:
        UsageError: it is the job's own output. Ends the job (exit 2).
        InputError: there is no finished output (exit 4).
        OutputMismatch: its run folder is not whole (exit 3).
        VerifyFailed: it is damaged (exit 7).
    """
    store = open_store(url)
    if store.url == output.url:
        raise UsageError(
            f"input.since: {url} is this job's own output.url; name the output of an earlier run, "
            "such as that of {yesterday}"
        )
    success = read_success(store)
    if success is None:
        raise InputError(
            f"input.since: {store.url} is no finished output: it has no _SUCCESS. Run that job to "
            "its end, or name the last output that is finished (--set input.since=URL); for the "
            "first run of all, leave it out (--set input.since=null)"
        )
    seed = DeltaSeed(FinishedOutput.open(store, success))
    plan = load_plan(output)
    if plan is not None:
        check_parent(output, plan.parent, seed.parent)
    return seed


class _Seeding:
    """One pass over the shards of the new plan."""

    def __init__(
        self, finished: FinishedOutput, rows: ParentRows, store: Store, plan: Plan
    ) -> None:
        self._finished = finished
        self._store = store
        self._plan = plan
        self._reader = RowReader(store, plan)
        before = finished.plan
        self._same = same_rows(
            self._reader.input_files(),
            plan.num_rows,
            RowReader(finished.store, before).input_files(),
            before.num_rows,
        )
        self._same_of_shards = _by_shard(self._same, plan)
        self._entries = finished.entries()
        self._has_same_format = before.decides["output"] == plan.decides["output"]
        self._has_digests = any(
            finished.record(entry).row_digests is not None for entry in self._entries
        )
        self._committed = set(committed_shards(store))
        self._rows = rows
        self._num_by_content = 0

    def reused(self) -> Reused:
        return Reused(
            since=self._finished.store.url,
            parent_manifest_sha256=self._finished.manifest_sha256,
            unchanged_files=len(self._same),
            rows_of_unchanged_files=sum(one.end_row - one.first_row for one in self._same),
            rows_of_same_content=self._num_by_content,
            looked_for_content=self._has_digests,
        )

    def groups(self) -> Iterator[list[Shard]]:
        """The shards in order, as many at a time as have so many rows to look for."""
        group: list[Shard] = []
        num_rows = 0
        for shard in self._plan.shards():
            group.append(shard)
            num_rows += sum(end - first for first, end in gaps(self._same_in(shard), shard))
            if num_rows >= _GROUP_ROWS:
                yield group
                group, num_rows = [], 0
        if group:
            yield group

    def take_over(self, group: Sequence[Shard], confirm: Callable[[], None]) -> None:
        by_content = self._find_by_content(group) if self._has_digests else {}
        self._num_by_content += len(by_content)
        for shard in group:
            if shard.index in self._committed:
                continue
            same = self._same_in(shard)
            if self._has_same_format and is_same_shard(shard, same, self._finished.plan):
                confirm()
                self._finished.copy_shard(self._store, self._plan, self._entries[shard.index])
            elif same or any(shard.first_row <= row < shard.end_row for row in by_content):
                confirm()
                self._put_segments(shard, same, by_content)

    def _same_in(self, shard: Shard) -> list[SameRows]:
        return self._same_of_shards.get(shard.index, [])

    def _put_segments(
        self, shard: Shard, same: list[SameRows], by_content: dict[int, Outcome]
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="rdu-batch-since-") as folder:
            path = Path(folder, "segment")
            outcomes = self._outcomes(shard, same, by_content)
            for segment in kept_segments(outcomes, shard, path):
                self._store.put_file(segment.name, str(path))

    def _outcomes(
        self, shard: Shard, same: list[SameRows], by_content: dict[int, Outcome]
    ) -> Iterator[Outcome | None]:
        """Of each row of the shard; None for one that is new."""
        row = shard.first_row
        for one in same:
            yield from map(by_content.get, range(row, one.first_row))
            num_rows = one.end_row - one.first_row
            for outcome in self._rows.read(one.first_row_before, num_rows):
                yield moved_to(outcome, one.file_index, None)
            row = one.end_row
        yield from map(by_content.get, range(row, shard.end_row))

    def _find_by_content(self, group: Sequence[Shard]) -> dict[int, Outcome]:
        """Greedy predictions of the parent for rows of the group that are in no unchanged file."""
        wanted = self._wanted_places(group)
        found: dict[int, Outcome] = {}
        for entry in self._entries if wanted else ():
            digests = self._finished.row_digests_of(self._finished.record(entry)) or b""
            places = {
                number: wanted.pop(digest)
                for number, digest in enumerate(_cut(digests))
                if digest in wanted
            }
            for number, outcome in self._rows.predictions(entry, places) if places else ():
                for ordinal, file_index, line in places[number]:
                    found[ordinal] = moved_to(outcome, file_index, line)
        return found

    def _wanted_places(self, group: Sequence[Shard]) -> dict[bytes, list[tuple[int, int, int]]]:
        """Ordinal, file index and line of the rows of a content that are in no unchanged file."""
        wanted: dict[bytes, list[tuple[int, int, int]]] = defaultdict(list)
        for shard in group:
            for first_row, end_row in gaps(self._same_in(shard), shard):
                for row in self._reader.read_rows(first_row, end_row):
                    if not row.too_long_bytes:
                        place = (row.ordinal, row.file_index, row.line)
                        wanted[bytes.fromhex(row_digest_of(row))].append(place)
        wanted.pop(bytes.fromhex(NO_ROW_DIGEST), None)
        return wanted


def _cut(row_digests: bytes) -> Iterator[bytes]:
    for start in range(0, len(row_digests), ROW_DIGEST_BYTES):
        yield row_digests[start : start + ROW_DIGEST_BYTES]


def _by_shard(same: Sequence[SameRows], plan: Plan) -> dict[int, list[SameRows]]:
    found: dict[int, list[SameRows]] = defaultdict(list)
    for one in same:
        first, last = (row // plan.rows_per_shard for row in (one.first_row, one.end_row - 1))
        for index in range(first, last + 1):
            found[index] += cut_to([one], plan.shard(index))
    return found


def _without_rows(decides: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: leaf for key, leaf in value.items() if key not in _FREE.get(name, ())}
        if isinstance(value, dict)
        else value
        for name, value in decides.items()
    }
