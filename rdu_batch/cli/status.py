"""``rdu-batch status OUTPUT``: where an output stands, from the store alone."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("output", metavar="OUTPUT")
def status(output: str) -> int:
    """Say where the output at URL OUTPUT stands: empty, unfinished or complete.

    Reads the store only, so it works from any machine and while the job runs.
    """
    from rdu_batch.runner.status import read_status
    from rdu_batch.storage.store import open_store

    found = read_status(open_store(output))
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
    click.echo(json.dumps(found.to_json(), ensure_ascii=False))
    return 0
