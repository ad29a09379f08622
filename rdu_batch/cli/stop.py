"""``rdu-batch stop SUBMISSION_ID``: stop a submission; what is finished is kept."""

from __future__ import annotations

import click

from rdu_batch.cli.submission_options import jobs_address
from rdu_batch.errors import UsageError
from rdu_batch.report.ci_text import json_line


@click.command()
@click.argument("submission_id", metavar="SUBMISSION_ID")
@jobs_address
def stop(submission_id: str, address: str | None) -> int:
    """Ask Ray to stop a submission; `wait` then ends with 12, and `submit` would go on.

    Ray kills a driver that is not gone within its RAY_JOB_STOP_WAIT_TIME_S, 3 seconds unless the
    cluster says otherwise; a killed one leaves nothing half done either.
    """
    from rdu_batch.runner.ray_jobs import RayJobs

    jobs = RayJobs(address)
    state = jobs.state(submission_id)
    if state is None:
        raise UsageError(f"Ray knows no submission {submission_id}; `ray job list` lists them")
    was_running = jobs.stop(submission_id)
    how = "stopping" if was_running else f"it had ended before: {state.status}"
    click.echo(f"rdu-batch: {submission_id}: {how}", err=True)
    told = {"submission_id": submission_id, "stopping": was_running, "exit": 0}
    click.echo(json_line(told))
    return 0
