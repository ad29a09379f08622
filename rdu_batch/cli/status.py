"""``rdu-batch status OUTPUT``: where an output stands, from the store alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rdu_batch.cli.submission_options import jobs_address
from rdu_batch.errors import UsageError

if TYPE_CHECKING:
    from rdu_batch.runner.status import OutputStatus


@click.command()
@click.argument("target", metavar="OUTPUT|SUBMISSION_ID")
@jobs_address
def status(target: str, address: str | None) -> int:
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
    found = read_status(open_store(target))
    _show(found)
    click.echo(json.dumps({**found.to_json(), **told}, ensure_ascii=False))
    return 0


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
