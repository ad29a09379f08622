"""``rdu-batch retry-dead PARENT job.yaml --into NEW``: run dead letters again, in a new output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rdu_batch.cli.executor_options import executor_options
from rdu_batch.cli.job_file import job_file_options, read_job_file
from rdu_batch.cli.parameter_types import FolderUrl
from rdu_batch.job.reasons import Reason

if TYPE_CHECKING:
    from rdu_batch.runner.executor_choice import ExecutorKind


@click.command("retry-dead")
@click.argument("parent", metavar="PARENT_OUTPUT", type=FolderUrl())
@job_file_options
@click.option("--into", required=True, metavar="NEW_OUTPUT", help="URL of the new output.")
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    type=click.Choice([str(reason) for reason in Reason]),
    metavar="REASON",
    help="Retry dead letters of this reason only. May be repeated. [default: all]",
)
@executor_options
def retry_dead(
    parent: str,
    job_file: str,
    overrides: tuple[str, ...],
    date: str | None,
    limit: int | None,
    into: str,
    reasons: tuple[str, ...],
    executor: ExecutorKind,
    address: str | None,
) -> int:
    """Run the dead letters of the finished output PARENT_OUTPUT again, into NEW_OUTPUT.

    JOB_FILE is the parent's own; only name, limits, workers and the place of the artifact may
    differ (--set limits.row_timeout_s=600, say). Its output.url is not used. NEW_OUTPUT gets every
    row: those that are not retried are copied byte for byte. Its manifest names the parent. The
    same command resumes; the last line of standard output is one JSON object.
    """
    from rdu_batch.report.progress import open_progress
    from rdu_batch.runner.page_out import keep_page
    from rdu_batch.runner.retry_dead import retry_dead_letters

    spec = read_job_file(job_file, overrides, date, limit)
    progress = open_progress()
    try:
        summary = retry_dead_letters(
            spec,
            parent=parent,
            into=into,
            reasons=[Reason(reason) for reason in reasons],
            executor=executor,
            address=address,
            progress=progress,
        )
        keep_page(summary, progress.phase)
    finally:
        progress.close()
    click.echo(summary.to_text(), err=True)
    click.echo(summary.to_line())
    return summary.exit
