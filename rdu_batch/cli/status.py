"""``rdu-batch status OUTPUT``: where an output stands, from the store alone."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rdu_batch.cli.parameter_types import FolderUrl
from rdu_batch.cli.submission_options import jobs_address
from rdu_batch.errors import Interrupted, UsageError
from rdu_batch.report.ci_text import json_line
from rdu_batch.report.summary import EXIT_TOO_MANY_DEAD

if TYPE_CHECKING:
    from rdu_batch.runner.status import OutputStatus
    from rdu_batch.storage.store import Store


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
    "watch_s",
    type=click.FloatRange(min=1),
    is_flag=False,
    flag_value=10.0,
    metavar="[SECONDS]",
    help="Look again, every 10 seconds unless told, until it is complete or its run ended.",
)
def status(target: str, address: str | None, tells_by_code: bool, watch_s: float | None) -> int:
    """Say where the output at URL OUTPUT stands: empty, unfinished or complete.

    Of an output only the store is read, so it works from any machine and while the job runs. Of a
    submission Ray is asked too; the output's is the word that counts.
    """
    from rdu_batch.runner.status import read_status
    from rdu_batch.runner.submission import is_submission_id
    from rdu_batch.storage.store import open_store

    told: dict[str, object] = {}
    if is_submission_id(target) and not Path(target).exists():
        target, told = _submission(target, address)
    store = open_store(target)
    found = read_status(store)
    _show(found)
    if watch_s is not None:
        found = _watch(store, found, watch_s)
    code = _code_of(found) if tells_by_code else 0
    click.echo(json_line({**found.to_json(), **told, "exit": code}))
    return code


def _watch(store: Store, found: OutputStatus, watch_s: float) -> OutputStatus:
    """Look again and again until the output is complete, or no driver lives that works on it."""
    from rdu_batch.runner.heartbeat import HEARTBEAT_S, takeover_s
    from rdu_batch.runner.status import read_status

    moved_s = time.monotonic()
    while found.state != "complete":
        driver = found.driver
        if driver is not None and driver.state != "unknown":
            break
        if driver is not None and time.monotonic() - moved_s > takeover_s(HEARTBEAT_S):
            click.echo("  its heartbeat stands still: no driver is at it any more", err=True)
            break
        time.sleep(watch_s)
        found = read_status(store)
        if found.driver != driver:
            moved_s = time.monotonic()
        click.echo(_line(found), err=True)
    return found


def _line(found: OutputStatus) -> str:
    percent = 100.0 * found.rows_durable / found.rows if found.rows else 100.0
    return (
        f"  {dt.datetime.now():%H:%M:%S}  {found.state}: {found.rows_durable:,} of {found.rows:,} "  # noqa: DTZ005
        f"rows durable ({percent:.1f}%), {found.shards_committed:,} of {found.shards:,} shards "
        f"committed"
    )


def _code_of(found: OutputStatus) -> int:
    last = found.last_result or {}
    if found.state == "complete":
        return EXIT_TOO_MANY_DEAD if last.get("exit") == EXIT_TOO_MANY_DEAD else 0
    return int(last.get("exit") or Interrupted.exit_code)


def _submission(submission_id: str, address: str | None) -> tuple[str, dict[str, object]]:
    """The output of a submission, and what Ray says of it."""
    from rdu_batch.runner.ray_jobs import RayJobs
    from rdu_batch.runner.submitting import OUTPUT

    state = RayJobs(address).state(submission_id)
    output = state.metadata.get(OUTPUT) if state else None
    if state is None or output is None:
        raise UsageError(
            f"Ray knows no submission {submission_id} of ours; `ray job list` lists them. To ask "
            f"for an output in a folder of this name, write ./{submission_id}"
        )
    click.echo(f"{submission_id}: Ray says {state.status}", err=True)
    return output, {"submission_id": submission_id, "ray_status": str(state.status)}


def _show(found: OutputStatus) -> None:
    click.echo(f"{found.output}: {found.state}", err=True)
    if found.state == "empty":
        click.echo("  no job has begun there; it should be the output.url of a job file", err=True)
    if found.name is not None:
        click.echo(f"  job     {found.name}", err=True)
    if found.shards:
        percent = 100.0 * found.rows_durable / found.rows if found.rows else 100.0
        click.echo(
            f"  rows    {found.rows_durable:,} of {found.rows:,} durable ({percent:.1f}%)", err=True
        )
        click.echo(f"  shards  {found.shards_committed:,} of {found.shards:,} committed", err=True)
    if found.state == "unfinished" and found.driver is not None:
        driver, last = found.driver, found.last_result
        click.echo(f"  run {driver.epoch}   on {driver.host}, pid {driver.pid}", err=True)
        if driver.state == "ended" and last is not None and "message" in last:
            click.echo(f"          {str(last['message']).splitlines()[0]}", err=True)
        elif driver.state == "gone":
            click.echo(
                "          stopped: it was killed; the same run command resumes it", err=True
            )
        elif driver.state == "unknown":
            click.echo(
                f"          no result yet; its heartbeat has moved {driver.heartbeats or 0} times. "
                "It lives if that number grows until you look again; if not, the same run "
                "command resumes it",
                err=True,
            )
