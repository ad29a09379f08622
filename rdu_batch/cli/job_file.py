"""The argument and options that name a job; shared by every verb that takes a job file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from rdu_batch.api import load_job
from rdu_batch.job.loading import load_spec
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.options_in_force import use_storage_options

Command = TypeVar("Command", bound=Callable[..., Any])


def job_file_options(command: Command) -> Command:
    """Add JOB_FILE, ``--set``, ``--date`` and ``--limit`` to a command."""
    for option in (
        click.option(
            "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows."
        ),
        click.option("--date", metavar="YYYY-MM-DD", help="Fills {date} in the job file's URLs."),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="a.b=VALUE",
            help="Override one leaf of the job file; VALUE is YAML. May be repeated.",
        ),
        # A path for completions alone: whether it can be read is said when it is read.
        click.argument("job_file", metavar="JOB_FILE", type=click.Path(readable=False)),
    ):
        command = option(command)
    return command


def read_job_file(
    job_file: str, overrides: Sequence[str], date: str | None, limit: int | None
) -> JobSpec:
    """Read a job file, ``-`` for standard input, with its overrides; use its storage options.

    Raises:
        SpecError: it cannot be read, or holds mistakes; all of them at once.
    """
    if job_file == "-":
        spec = load_spec(
            sys.stdin.read(), source=job_file, overrides=overrides, date=date, limit=limit
        )
    else:
        spec = load_job(job_file, overrides=overrides, date=date, limit=limit)
    use_storage_options(spec)
    return spec
