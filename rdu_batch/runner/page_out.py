"""The report page and the numbers of a run, kept beside its progress in the output.

They are written after everything that counts: a job whose page cannot be written has ended all
the same, and as it would have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdu_batch.errors import (
    Interrupted,
    OutputMismatch,
    OutputOwned,
    RduBatchError,
    StoreError,
)
from rdu_batch.report.metrics import openmetrics_of
from rdu_batch.report.page import render_page
from rdu_batch.report.summary import COMPLETE
from rdu_batch.runner.page_facts import read_page_facts
from rdu_batch.runner.run_layout import OPENMETRICS, REPORT_PAGE
from rdu_batch.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.report.summary import Summary
    from rdu_batch.storage.store import Store


def keep_page(summary: Summary, say: Callable[[str], object]) -> None:
    """Write ``_run/report.html`` and ``_run/openmetrics.txt`` of a run that came to its end.

    Nothing where it found the job complete. ``say`` is told, in a line for people, what prevented
    it.
    """
    if summary.state != COMPLETE:
        return
    try:
        store = open_store(summary.output)
        _write_page(store)
        store.put_whole(OPENMETRICS, openmetrics_of(summary).encode())
    except RduBatchError as error:
        say(
            f"the page {REPORT_PAGE} was not written: {error}; the job is complete all the same, "
            f"and `rdu-batch report {summary.output}` makes the page"
        )


def leave_page_of_failure(store: Store, error: RduBatchError, say: Callable[[str], object]) -> None:
    """Write the page of a job whose run failed, once the run has reported that.

    Not where time is short, after a stop; nor where the store is what failed; nor where the output
    is another driver's, or of another version. ``say`` is told what prevented it; the error stays
    what is raised.
    """
    if isinstance(error, Interrupted | StoreError | OutputOwned | OutputMismatch):
        return
    try:
        _write_page(store)
    except RduBatchError as failure:
        say(f"the page {REPORT_PAGE} was not written: {failure}")


def _write_page(store: Store) -> None:
    store.put_whole(REPORT_PAGE, render_page(read_page_facts(store)).encode())
