"""Making, saving and loading the plan of a job.

Promises: the inputs are listed once and pinned; the index is in the store before the plan that
names it; the plan is created once: of several planners one wins and all go on with its plan.
"""

from __future__ import annotations

import contextlib
import gc
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rdu_batch.dataset.counting import CountRanges, count_here
from rdu_batch.dataset.index_pages import PageWriter
from rdu_batch.dataset.indexing import Tasks, index_files, index_until
from rdu_batch.dataset.later_inputs import note_of_later_inputs
from rdu_batch.dataset.line_index import LongestRows
from rdu_batch.dataset.listing import ListedFile, list_inputs
from rdu_batch.dataset.recut import is_recut
from rdu_batch.errors import InputError, ObjectMissing, OutputMismatch
from rdu_batch.job import run_paths
from rdu_batch.job.plan import (
    FORMAT_VERSION,
    WINDOW_BYTES,
    Parent,
    Plan,
    diff_decides,
    digest_of,
    job_decides,
)
from rdu_batch.storage.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rdu_batch.job.spec import JobSpec


@dataclass(frozen=True)
class RecutCost:
    """What is to be cut anew before a run can read it: decoded files that are large."""

    num_files: int = 0
    #: As they are stored.
    stored_bytes: int = 0
    decoded_bytes: int = 0


@dataclass(frozen=True)
class PlannedJob:
    """A plan, and the content of its index pages where nobody has taken them yet."""

    plan: Plan
    pages: tuple[bytes, ...]
    recut: RecutCost = RecutCost()


def make_plan(
    spec: JobSpec,
    artifact_digest: str,
    *,
    take_page: Callable[[str, bytes], object] | None = None,
    recut_url: str | None = None,
    count_ranges: CountRanges = count_here,
    parent: Parent | None = None,
    window_bytes: int = WINDOW_BYTES,
) -> PlannedJob:
    """List, pin and index the inputs of a job. Writes nothing unless it is told where.

    With ``input.limit`` the files after the one in which the limit is reached are not read and are
    no part of the plan; the files before it are indexed whole, so their pins hold.

    Args:
        spec: the job.
        artifact_digest: of the artifact that it runs.
        take_page: takes the name and content of each index page as soon as it is whole; with None
            they are kept for ``save_plan``, which for a million files takes memory.
        recut_url: the output in which large decoded files are cut anew (``recut.py``). A URL, as
            other processes write there, too. None cuts nothing: the plan can be shown, not run,
            where ``PlannedJob.recut`` names files.
        count_ranges: counts, here or in other processes. Not used with ``input.limit``.
        parent: what the plan says of the output that this one begins from.
        window_bytes: the format's own but in tests.

    Raises:
        InputError: an input is missing, unreadable, damaged, doubled, or changed while it was read.
        StoreError: a store failed.
    """
    with _no_collections():
        return _make_plan(
            spec,
            artifact_digest,
            take_page=take_page,
            recut_url=recut_url,
            count_ranges=count_ranges,
            parent=parent,
            window_bytes=window_bytes,
        )


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Let Python's collector of cycles rest: it would walk a million listed files again and again.

    Nothing here makes cycles. It is a third of the driver's work otherwise.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _make_plan(
    spec: JobSpec,
    artifact_digest: str,
    *,
    take_page: Callable[[str, bytes], object] | None,
    recut_url: str | None,
    count_ranges: CountRanges,
    parent: Parent | None,
    window_bytes: int,
) -> PlannedJob:
    """See ``make_plan``."""
    listed = list_inputs(spec.input.urls)
    _check_not_own_output(listed, spec.output.url)
    limit = spec.input.limit
    longest = LongestRows()
    pages = PageWriter(take_page)
    tasks = Tasks(listed, window_bytes, recut_url)
    if limit is None:
        indexed_files = index_files(tasks, longest, count_ranges)
    else:
        indexed_files = index_until(tasks, longest, limit)
    num_rows = num_files = num_bytes = 0
    recut = RecutCost()
    for indexed in indexed_files:
        pages.add(indexed)
        num_files += 1
        num_rows += indexed.num_rows
        num_bytes += indexed.size_bytes
        if is_recut(indexed):
            recut = RecutCost(
                recut.num_files + 1,
                recut.stored_bytes + indexed.size_bytes,
                recut.decoded_bytes + indexed.logical_bytes,
            )
    pages.end_page()
    decides = job_decides(spec, artifact_digest)
    plan = Plan(
        version=FORMAT_VERSION,
        name=spec.name,
        job_digest=digest_of(decides),
        decides=decides,
        num_files=num_files,
        num_rows=num_rows if limit is None else min(num_rows, limit),
        num_bytes=num_bytes,
        rows_per_shard=spec.output.rows_per_shard,
        index_pages=tuple(pages.pages),
        longest_rows=longest.rows(),
        parent=parent,
    )
    return PlannedJob(plan, tuple(pages.contents), recut)


def save_plan(store: Store, planned: PlannedJob) -> Plan:
    """Save a plan in its output, its index first; returns the plan that counts.

    If the output has a plan of the same job already, that one is returned: its pins count.

    Raises:
        OutputMismatch: the output holds another job.
        StoreError: the store failed; ``CreateOnceUnsupported`` where it cannot create once.
    """
    existing = load_plan(store)
    if existing is None:
        # Pages that were taken while the plan was made are there already.
        for page, content in zip(planned.plan.index_pages, planned.pages, strict=False):
            store.put_whole(page.name, content)
        existing = Plan.from_bytes(_standing_plan(store, planned.plan))
    check_same_job(existing, planned.plan.decides, store)
    return existing


def _standing_plan(store: Store, plan: Plan) -> bytes:
    """Create the plan's object; the content that stands, another planner's if it was first."""
    try:
        return store.create_or_read(run_paths.PLAN, plan.to_bytes())
    except ObjectMissing as error:
        raise OutputMismatch(
            f"{store.join(run_paths.PLAN)} was there and is gone again; "
            "something else deletes in this output folder, choose another output.url"
        ) from error


def load_plan(store: Store) -> Plan | None:
    """Load the plan of an output; None if it has none.

    Raises:
        OutputMismatch: the plan is damaged or of another format version.
    """
    try:
        return Plan.from_bytes(store.read(run_paths.PLAN))
    except ObjectMissing:
        return None


def plan_of_output(
    store: Store,
    spec: JobSpec,
    artifact_digest: str,
    *,
    count_ranges: CountRanges = count_here,
    parent: Parent | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Plan:
    """Return the plan an output has for this job; make and save one if it has none.

    An output that has its plan already is answered without reading any input; ``say`` is told where
    there are more of them than then.

    Raises:
        OutputMismatch: the output holds another job.
        InputError: an input is missing, unreadable, doubled, or changed while it was read.
        StoreError: a store failed.
    """
    existing = load_plan(store)
    if existing is None:
        planned = make_plan(
            spec,
            artifact_digest,
            take_page=store.put_whole,
            recut_url=store.url,
            count_ranges=count_ranges,
            parent=parent,
        )
        return save_plan(store, planned)
    check_same_job(existing, job_decides(spec, artifact_digest), store)
    note = note_of_later_inputs(existing, spec)
    if note is not None:
        say(note)
    return existing


class OutputState(StrEnum):
    """What an output folder holds, seen from one job."""

    NEW = "new"
    IN_PROGRESS = "in progress"
    COMPLETE = "complete"
    ANOTHER_JOB = "another job"


def state_of_output(store: Store, plan: Plan | None, decides: dict[str, Any]) -> OutputState:
    """Say what an output holds for the job with these deciding values; ``plan`` is the output's."""
    if plan is None:
        return OutputState.NEW
    if plan.job_digest != digest_of(decides):
        return OutputState.ANOTHER_JOB
    if store.exists(run_paths.SUCCESS):
        return OutputState.COMPLETE
    return OutputState.IN_PROGRESS


def check_same_job(plan: Plan, decides: dict[str, Any], store: Store) -> None:
    """Check that an output's plan is of the job with these deciding values.

    Raises:
        OutputMismatch: it is not; the message lists what differs.
    """
    if plan.job_digest == digest_of(decides):
        return
    differences = "\n".join(f"  {line}" for line in diff_decides(plan.decides, decides))
    raise OutputMismatch(
        f"{store.url} holds another job, named {plan.name!r}. What differs (there -> here):\n"
        f"{differences}\n"
        "Take the change back, choose another output.url, or delete that folder to start anew"
    )


def _check_not_own_output(listed: Iterable[ListedFile], output_url: str) -> None:
    """Refuse inputs that lie in the output folder: parts would become inputs of the next plan."""
    output = open_store(output_url)
    prefix, shipped = (
        output.join("x")[:-1],
        output.join(f"{run_paths.SHIPPED_INPUTS_FOLDER}/x")[:-1],
    )
    for file in listed:
        if file.url.startswith(prefix) and not file.url.startswith(shipped):
            raise InputError(
                f"the input {file.url} lies in the output folder {output.url}, whose parts would "
                "become inputs; choose another output.url, or leave its folder out of the inputs"
            )
