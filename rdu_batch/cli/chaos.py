"""``rdu-batch chaos job.yaml``: do the promises hold, whatever fails, wherever it fails?"""

from __future__ import annotations

import click

from rdu_batch.cli.job_file import read_job_file
from rdu_batch.cli.parameter_types import FiniteRange
from rdu_batch.report.ci_text import json_line


@click.command()
@click.argument("job_file", metavar="JOB_FILE", type=click.Path(readable=False))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="a.b=VALUE",
    help="Override one leaf of the job file; VALUE is YAML. May be repeated.",
)
@click.option("--date", metavar="YYYY-MM-DD", help="Fills {date} in the job file's URLs.")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    metavar="N",
    help="How many of the job's first rows to use; two broken lines are added to them.",
)
@click.option(
    "--scratch",
    metavar="URL",
    help="Folder for the trials' outputs, of any store: that store is what is tried. What is "
    "written there is removed at the end. [default: a local temporary folder]",
)
@click.option(
    "--own-session",
    is_flag=True,
    help="Use the job's own session and generation settings, not the fake ones. Each run then "
    "takes as long as the model needs to load.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    metavar="N",
    help="Trials at the same time.",
)
@click.option(
    "--only",
    multiple=True,
    metavar='"FAULT @ N"',
    help="Only this trial, or all of a FAULT. May be repeated.",
)
@click.option(
    "--ray-sample",
    type=click.IntRange(min=0),
    default=6,
    show_default=True,
    metavar="N",
    help="How many trials to draw that go through a local Ray; 0 for none.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, metavar="N", help="Draws those trials."
)
@click.option(
    "--run-timeout",
    type=FiniteRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="A run that takes longer counts as hung, which is a violation.",
)
def chaos(
    job_file: str,
    overrides: tuple[str, ...],
    date: str | None,
    rows: int,
    scratch: str | None,
    own_session: bool,
    jobs: int,
    only: tuple[str, ...],
    ray_sample: int,
    seed: int,
    run_timeout: float,
) -> int:
    """Run a small form of JOB_FILE hundreds of times with a fault each time, and judge each.

    A first run without a fault tells every call that a run makes of its store, and where its rows
    begin and end. Then each of these is hurt in turn, in every way that applies: driver or worker
    killed before or after it, the store answers 503, the reply is lost, half of a write is there, a
    listing is stale. After each fault the same command runs again, without one. What comes of it is
    compared with the run without a fault. The job's own output is never touched.

    Prints the matrix of faults against promises on standard error; the last line of standard output
    is one JSON object. Exit 0 if every promise held in every trial, 7 if one was broken.
    """
    from rdu_batch.report.progress import open_progress
    from rdu_batch.runner.chaos import ChaosSettings, run_chaos

    spec = read_job_file(job_file, overrides, date, None)
    settings = ChaosSettings(
        rows=rows,
        jobs=jobs,
        scratch=scratch,
        own_session=own_session,
        only=only,
        ray_sample=ray_sample,
        seed=seed,
        run_timeout_s=run_timeout,
    )
    progress = open_progress()
    try:
        report = run_chaos(spec, settings, progress)
    finally:
        progress.close()
    for line in report.lines():
        click.echo(line, err=True)
    click.echo(json_line(report.to_json()))
    return report.exit
