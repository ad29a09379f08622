"""``rdu-batch run job.yaml``: begin a job, resume it, or find it complete.

``rdu-batch run --inference --pef PATH`` is the tutorial's command, with flags of its own
(``tutorial_run.py``).
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from rdu_batch.cli.ci_options import NO_CI_OUTPUT, CiOutput, ci_options, title_of
from rdu_batch.cli.executor_options import executor_options
from rdu_batch.cli.job_file import job_file_options, read_job_file
from rdu_batch.cli.tutorial_run import has_output, is_tutorial, tutorial_run
from rdu_batch.storage.options_in_force import without_secrets

if TYPE_CHECKING:
    from rdu_batch.job.spec import JobSpec
    from rdu_batch.runner.executor_choice import ExecutorKind


class RunCommand(click.Command):
    """One verb with two forms: the words say which, before any of them is parsed."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the words as the form that they are."""
        if not is_tutorial(args):
            return super().make_context(info_name, args, parent, **extra)
        prints_predictions = not has_output(args)
        try:
            return tutorial_run.make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            if not prints_predictions:
                raise
            # Standard output is for predictions alone, also where there are none.
            error.show()
            raise click.exceptions.Exit(error.exit_code) from error


@click.command(
    cls=RunCommand,
    epilog="The tutorial's command, which prints predictions: see `rdu-batch run --inference "
    "--help`.",
)
@job_file_options
@executor_options
@ci_options
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
    ci_output: CiOutput,
) -> int:
    """Run the job of JOB_FILE.

    The same command resumes a job that was interrupted; a complete job is left alone (exit 0).
    Progress goes to standard error; the last line of standard output is one JSON object.
    """
    with ci_output.telling_errors(job_file):
        spec = read_job_file(job_file, overrides, date, limit)
    return run_spec(
        spec,
        title_of(spec.name, date),
        executor=executor,
        address=address,
        samples=samples,
        ci_output=ci_output,
    )


def run_spec(
    spec: JobSpec,
    title: str,
    *,
    executor: ExecutorKind,
    address: str | None,
    samples: int = 0,
    ci_output: CiOutput = NO_CI_OUTPUT,
) -> int:
    """Run a job and say how it ended; the exit code."""
    from rdu_batch.report.ci_text import without_commands
    from rdu_batch.report.progress import Silent, open_progress
    from rdu_batch.report.samples import sample_predictions
    from rdu_batch.runner.page_out import keep_page
    from rdu_batch.runner.published import read_lines
    from rdu_batch.runner.run_job import run_job
    from rdu_batch.storage.store import open_store

    shown = Silent() if ci_output.only_json else open_progress()
    about = {"name": spec.name, "output": without_secrets(spec.output.url)}
    with ci_output.telling_errors(title, **about), closing(shown) as progress:
        summary = run_job(spec, executor=executor, address=address, progress=progress)
        keep_page(summary, progress.phase)
    summary = ci_output.judged(summary)
    ci_output.say(summary.to_text())
    if samples:
        click.echo("", err=True)
        for line in sample_predictions(open_store(spec.output.url), samples, read_lines):
            # Predictions are text of anyone's: in a runner of GitHub none may give it a command.
            click.echo(without_commands(line), err=True)
    ci_output.tell(summary.to_json(), title)
    click.echo(summary.to_line())
    return summary.exit
