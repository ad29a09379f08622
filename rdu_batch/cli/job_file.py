"""The argument and options that name a job; shared by every verb that takes a job file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from rdu_batch.errors import SpecError
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
        click.argument("job_file", metavar="JOB_FILE"),
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
    try:
        text = sys.stdin.read() if job_file == "-" else Path(job_file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SpecError(
            [f"{job_file}: the job file cannot be read: {reason}. Name a YAML job file."]
        ) from error
    spec = load_spec(text, source=job_file, overrides=overrides, date=date, limit=limit)
    use_storage_options(spec)
    return spec
