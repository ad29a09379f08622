"""``rdu-batch logs SUBMISSION_ID``: what the driver of a submission has printed."""

from __future__ import annotations

import time

import click

from rdu_batch.cli.standard_streams import is_stdout_lost
from rdu_batch.cli.submission_options import jobs_address
from rdu_batch.errors import UsageError

_POLL_S = 1.0


@click.command()
@click.argument("submission_id", metavar="SUBMISSION_ID")
@jobs_address
@click.option("--follow", "-f", is_flag=True, help="Go on until the submission has ended.")
def logs(submission_id: str, address: str | None, follow: bool) -> int:
    """Print the log of a submission's driver. It tells no exit code: `wait` does."""
    from rdu_batch.runner.ray_jobs import RayJobs

    jobs = RayJobs(address)
    num_told = 0
    while True:
        state = jobs.state(submission_id)
        log = jobs.log(submission_id)
        if state is None or log is None:
            raise UsageError(f"Ray knows no submission {submission_id}; `ray job list` lists them")
        click.echo(log[num_told:], nl=False)
        num_told = len(log)
        if not follow or state.status.is_ended or is_stdout_lost():
            return 0
        time.sleep(_POLL_S)
