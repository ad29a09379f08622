"""``rdu-batch wait SUBMISSION_ID``: wait for a submission and end with its exit code."""

from __future__ import annotations

import click

from rdu_batch.cli.ci_options import CiOutput, ci_options
from rdu_batch.cli.submission_options import (
    jobs_address,
    reach_jobs,
    wait_and_tell,
    wait_options,
)


@click.command()
@click.argument("submission_id", metavar="SUBMISSION_ID")
@jobs_address
@wait_options
@ci_options
@click.option("--output", metavar="URL", help="The job's output, where Ray no longer knows it.")
def wait(
    submission_id: str,
    address: str | None,
    timeout: float | None,
    patience: float | None,
    output: str | None,
    ci_output: CiOutput,
) -> int:
    """Wait for a submission, from any machine that reaches the cluster and the output.

    Ends with the exit code that its driver reported in the output's store; 11 if --timeout is over.
    """
    with ci_output.telling_errors(submission_id):
        code = wait_and_tell(
            reach_jobs(address, patience, ci_output),
            submission_id,
            output,
            timeout_s=timeout,
            patience_s=patience,
            ci_output=ci_output,
        )
    return code or 0
