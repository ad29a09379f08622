"""``rdu-batch status OUTPUT``: where an output stands, from the store alone."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rdu_batch.cli.parameter_types import FiniteRange, FolderUrl
from rdu_batch.cli.submission_options import jobs_address
from rdu_batch.errors import ClusterError, Interrupted, UsageError
from rdu_batch.report.ci_text import json_line, without_commands
from rdu_batch.report.summary import EXIT_TOO_MANY_DEAD
from rdu_batch.report.wording import counted

if TYPE_CHECKING:
    from rdu_batch.runner.status import DriverStatus, OutputStatus
    from rdu_batch.runner.submission_status import SubmissionStatus

#: Seconds between two looks of ``--watch``, unless told.
EVERY_S = 10.0
_RESUMES = "the same command (run or submit) resumes it"


@dataclass(frozen=True)
class Look:
    """One look at an output, and at the submission that was asked for, if one was."""

    output: OutputStatus
    submission: SubmissionStatus | None = None
    #: Whether the heartbeat of its last driver was seen to stand still.
    is_still: bool = False


@click.command()
@click.argument("target", metavar="OUTPUT|SUBMISSION_ID", type=FolderUrl())
@jobs_address
@click.option(
    "--exit-code",
    "tells_by_code",
    is_flag=True,
    help="End with 0 only if the output is complete, else as its last run did, or with 12.",
)
@click.option(
    "--watch",
    "is_watching",
    is_flag=True,
    help="Look again and again, until it is complete or its run ended.",
)
@click.option(
    "--every",
    "every_s",
    type=FiniteRange(min=1),
    metavar="SECONDS",
    help=f"With --watch: how long to wait between two looks. [default: {EVERY_S:g}]",
)
def status(
    target: str,
    address: str | None,
    tells_by_code: bool,
    is_watching: bool,
    every_s: float | None,
) -> int:
    """Say where the output at URL OUTPUT stands: empty, unfinished or complete.

    Of an output only the store is read, so it works from any machine and while the job runs. Of a
    submission Ray is asked too; the output's is the word that counts.
    """
    from rdu_batch.runner.submission import is_submission_id

    if every_s is not None and not is_watching:
        raise UsageError("--every is how often --watch looks: add --watch")
    is_submission = is_submission_id(target) and not Path(target).exists()
    look = _looks_at_submission(target, address) if is_submission else _looks_at_output(target)
    found = look()
    _show(found)
    if is_watching and not _is_over(found):
        found = _watch(look, found, every_s or EVERY_S)
        _show(found)
    code = _code_of(found) if tells_by_code else 0
    told = found.submission.to_json() if found.submission else {}
    click.echo(json_line({**found.output.to_json(), **told, "exit": code}))
    return code


def _looks_at_output(url: str) -> Callable[[], Look]:
    from rdu_batch.runner.status import read_status
    from rdu_batch.storage.store import open_store

    store = open_store(url)
    return lambda: Look(read_status(store))


def _looks_at_submission(submission_id: str, address: str | None) -> Callable[[], Look]:
    """How to look at a submission of ours; its output is what Ray says."""
    from rdu_batch.runner.ray_jobs import RayJobs
    from rdu_batch.runner.status import read_status
    from rdu_batch.runner.submission_status import look_at_submission
    from rdu_batch.runner.submitting import OUTPUT
    from rdu_batch.storage.store import open_store

    jobs = RayJobs(address)
    first = jobs.state(submission_id)
    url = first.metadata.get(OUTPUT) if first else None
    if url is None:
        raise UsageError(
            f"Ray knows no submission {submission_id} of ours; `ray job list` lists them. To ask "
            f"for an output in a folder of this name, write ./{submission_id}"
        )
    store = open_store(url)

    def look() -> Look:
        try:
            ray = jobs.state(submission_id)
        except ClusterError:
            ray = None  # the store tells the end of it, whatever became of the cluster
        submission = look_at_submission(jobs, submission_id, ray, store)
        return Look(read_status(store), submission)

    return look


def _is_over(found: Look) -> bool:
    """Whether nothing changes any more by itself."""
    if found.output.state == "complete":
        return True
    if found.submission is not None:
        return found.submission.ending is not None
    driver = found.output.driver
    return driver is not None and driver.state in ("ended", "gone")


def _watch(look: Callable[[], Look], found: Look, every_s: float) -> Look:
    """Look again and again until it is over, or no driver lives that works on it."""
    from rdu_batch.runner.heartbeat import HEARTBEAT_S, takeover_s

    moved_s = time.monotonic()
    while not _is_over(found):
        driver = found.output.driver
        is_still = driver is not None and driver.state == "unknown" and not _has_yet_to_begin(found)
        if is_still and time.monotonic() - moved_s > takeover_s(HEARTBEAT_S):
            return replace(found, is_still=True)
        time.sleep(every_s)
        found = look()
        if found.output.driver != driver:
            moved_s = time.monotonic()
        click.echo(_line(found), err=True)
    return found


def _has_yet_to_begin(found: Look) -> bool:
    """Whether what stands in the output is of others than the submission that was asked for."""
    submission = found.submission
    return submission is not None and submission.ending is None and submission.epoch is None


def _line(found: Look) -> str:
    output, now = found.output, f"{dt.datetime.now():%H:%M:%S}"  # noqa: DTZ005 - a person's clock
    if _has_yet_to_begin(found):
        return f"  {now}  waiting for the submission's driver to begin{_ray_says(found)}"
    if output.state == "empty":
        return f"  {now}  waiting for a job to begin there"
    return (
        f"  {now}  {output.state}: {output.rows_durable:,} of {output.rows:,} rows durable "
        f"({_percent(output):.1f}%), {output.shards_committed:,} of {output.shards:,} shards "
        "committed"
    )


def _percent(output: OutputStatus) -> float:
    return 100.0 * output.rows_durable / output.rows if output.rows else 100.0


def _ray_says(found: Look) -> str:
    told = found.submission.ray_status if found.submission else None
    return f" (Ray says {told})" if told else ""


def _code_of(found: Look) -> int:
    last = found.output.last_result or {}
    if found.output.state == "complete":
        return EXIT_TOO_MANY_DEAD if last.get("exit") == EXIT_TOO_MANY_DEAD else 0
    ending = found.submission.ending if found.submission else None
    code = ending.exit if ending is not None else last.get("exit")
    return int(code or Interrupted.exit_code)


def _show(found: Look) -> None:
    for line in _text(found):
        # What a run said of its end may quote a row.
        click.echo(without_commands(line), err=True)


def _text(found: Look) -> list[str]:
    output, submission = found.output, found.submission
    lines = []
    if submission is not None:
        lines.append(f"{submission.id}: Ray says {submission.ray_status or 'nothing any more'}")
        if submission.ending is not None:
            ending = submission.ending
            message = f": {_first_line(ending.message)}" if ending.message else ""
            lines.append(f"  ended   {ending.state}, exit {ending.exit}{message}")
        elif _has_yet_to_begin(found):
            lines.append("  its driver has not begun yet")
    lines.append(f"{output.output}: {output.state}")
    if output.state == "empty" and submission is None:
        lines.append("  no job has begun there; it should be the output.url of a job file")
    if output.name is not None:
        lines.append(f"  job     {output.name}")
    if output.shards:
        lines.append(
            f"  rows    {output.rows_durable:,} of {output.rows:,} durable "
            f"({_percent(output):.1f}%)"
        )
        lines.append(f"  shards  {output.shards_committed:,} of {output.shards:,} committed")
    if output.state == "unfinished" and output.driver is not None:
        driver, told = output.driver, _of_driver(output.driver, found)
        lines.append(f"  run {driver.epoch}   on {driver.host}, pid {driver.pid}")
        lines += [f"          {told}"] if told else []
    return lines


def _of_driver(driver: DriverStatus, found: Look) -> str:
    """What there is to say of the last driver of an unfinished output."""
    last, submission = found.output.last_result, found.submission
    if driver.state == "ended":
        return _first_line(str(last["message"])) if last and "message" in last else ""
    if driver.state == "gone":
        return f"stopped: it was killed; {_RESUMES}"
    if found.is_still:
        return f"stopped: its heartbeat stands still, no driver is at it any more; {_RESUMES}"
    moved = f"its heartbeat has moved {counted(driver.heartbeats or 0, 'time')}"
    is_running = driver.state == "running"
    if submission is not None and submission.epoch == driver.epoch:
        if submission.ending is not None:
            return f"stopped without a report; {_RESUMES}"
        is_running = is_running or submission.is_running
    if is_running:
        return f"running; {moved}"
    return (
        f"no result yet; {moved}. It lives if that number grows until you look again (--watch "
        f"does); if not, {_RESUMES}"
    )


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")
