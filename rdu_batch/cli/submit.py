"""``rdu-batch submit JOB_FILE``: run a job on a Ray cluster, by its Jobs API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rdu_batch.cli.ci_options import CiOutput, ci_options, title_of
from rdu_batch.cli.job_file import job_file_options, read_job_file
from rdu_batch.cli.submission_options import (
    jobs_address,
    reach_jobs,
    wait_and_tell,
    wait_options,
)
from rdu_batch.report.ci_text import json_line
from rdu_batch.storage.options_in_force import without_secrets

if TYPE_CHECKING:
    from rdu_batch.job.spec import JobSpec


@click.command()
@job_file_options
@jobs_address
@wait_options
@ci_options
@click.option(
    "--wait/--detach",
    "is_waiting",
    default=True,
    show_default=True,
    help="Wait for the job and end with its exit code, or end once it is submitted.",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="With --wait: how often to submit, where a driver was killed before it could report.",
)
@click.option(
    "--python",
    default="python",
    show_default=True,
    help="The interpreter on the cluster that has rdu_batch.",
)
def submit(
    job_file: str,
    overrides: tuple[str, ...],
    date: str | None,
    limit: int | None,
    address: str | None,
    timeout: float | None,
    patience: float | None,
    is_waiting: bool,
    attempts: int,
    python: str,
    ci_output: CiOutput,
) -> int:
    """Run the job of JOB_FILE on a Ray cluster.

    The job file and local inputs are shipped. A submission is called NAME-DATE-N: the same command
    again finds the one that is under way or has completed the job, and otherwise goes on after it.
    How the job ended is read from its output; the driver's log is shown meanwhile.
    """
    with ci_output.telling_errors(job_file):
        spec = read_job_file(job_file, overrides, date, limit)
    about = {"name": spec.name, "output": without_secrets(spec.output.url)}
    with ci_output.telling_errors(title_of(spec.name, date), **about):
        return _submit(
            spec,
            date,
            address=address,
            timeout_s=timeout,
            patience_s=patience,
            num_submits=attempts if is_waiting else 0,
            python=python,
            ci_output=ci_output,
        )


def _submit(
    spec: JobSpec,
    date: str | None,
    *,
    address: str | None,
    timeout_s: float | None,
    patience_s: float | None,
    num_submits: int,
    python: str,
    ci_output: CiOutput,
) -> int:
    from rdu_batch.runner.shipping import is_local, shipment_of
    from rdu_batch.runner.submission import submission_key
    from rdu_batch.runner.submitting import submit_job

    jobs = reach_jobs(address, patience_s, ci_output)
    shipment = shipment_of(spec)
    output_url = shipment.spec.output.url
    key = submission_key(spec.name, date)
    while True:
        submitted = submit_job(jobs, shipment, key, python=python)
        how = "submitted" if submitted.is_new else "found"
        note = ", which has completed the job: nothing is run" if submitted.had_ended else ""
        ci_output.say(f"rdu-batch: {how} {submitted.id}{note}; output {output_url}")
        if submitted.is_new and is_local(output_url):
            ci_output.say("rdu-batch: the output is a folder, which every node must share with you")
        if not num_submits:
            told = {"submission_id": submitted.id, "state": how, "output": output_url}
            click.echo(json_line({**told, "exit": 0}))
            return 0
        num_submits -= 1
        code = wait_and_tell(
            jobs,
            submitted.id,
            output_url,
            timeout_s=timeout_s,
            patience_s=patience_s,
            ci_output=ci_output,
            may_submit_again=num_submits > 0,
            shows_log=not submitted.had_ended,
        )
        if code is not None:
            return code
