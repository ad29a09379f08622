"""``rdu-batch run job.yaml``: begin a job, resume it, or find it complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rdu_batch.cli.executor_options import executor_options
from rdu_batch.cli.job_file import job_file_options, read_job_file

if TYPE_CHECKING:
    from rdu_batch.runner.executor_choice import ExecutorKind


@click.command()
@job_file_options
@executor_options
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Also show the first N predictions when the job is complete.",
)
def run(
    job_file: str,
    overrides: tuple[str, ...],
    date: str | None,
    limit: int | None,
    executor: ExecutorKind,
    address: str | None,
    samples: int,
) -> int:
    """Run the job of JOB_FILE.

    The same command resumes a job that was interrupted; a complete job is left alone (exit 0).
    Progress goes to standard error; the last line of standard output is one JSON object.
    """
    from rdu_batch.report.progress import open_progress
    from rdu_batch.report.samples import sample_predictions
    from rdu_batch.runner.run_job import run_job
    from rdu_batch.storage.store import open_store

    spec = read_job_file(job_file, overrides, date, limit)
    progress = open_progress()
    try:
        summary = run_job(spec, executor=executor, address=address, progress=progress)
    finally:
        progress.close()
    click.echo(summary.to_text(), err=True)
    if samples:
        click.echo("", err=True)
        for line in sample_predictions(open_store(spec.output.url), samples):
            click.echo(line, err=True)
    click.echo(summary.to_line())
    return summary.exit
