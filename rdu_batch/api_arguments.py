"""Arguments of ``api.py``: what a program may say for a job, its day and its overrides.

Promises: what is of the wrong kind is an error of ours, before anything is read or planned.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import SpecError, UsageError
from rdu_batch.job.spec import JobSpec

if TYPE_CHECKING:
    from pathlib import Path


def check_job_arguments(job: object, overrides: object, limit: object) -> None:
    """Refuse what a program passes by mistake: no checker of types looks at a notebook.

    Raises:
        UsageError: an argument is of a kind that none can be.
    """
    if not isinstance(job, JobSpec | str | os.PathLike | Mapping):
        raise UsageError(
            f"job is {job!r}, wanted a JobSpec, the path of a job file, or a mapping of what one "
            "would say"
        )
    if (
        not isinstance(overrides, Sequence)
        or isinstance(overrides, str | bytes)
        or not all(isinstance(one, str) for one in overrides)
    ):
        raise UsageError(
            f"overrides is {overrides!r}, wanted a list of texts, such as ['limits.deadline_s=60']"
        )
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UsageError(f"limit is {limit!r}, wanted a whole number, 1 or more")


def day_text(date: str | dt.date) -> str:
    """The text of a day; ``UsageError`` for what is none."""
    if isinstance(date, str):
        return date
    if isinstance(date, dt.date):  # of a time, such as a scheduler's, its day
        return f"{date:%Y-%m-%d}"
    raise UsageError(f"date is {date!r}, wanted a day, or its text such as '2026-11-22'")


def text_of_mapping(job: Mapping[str, Any]) -> str:
    """The text of a job file that says what a mapping does; ``SpecError`` if none can."""
    # What is JSON is YAML, too: a mapping goes through the same door as a file.
    try:
        return json.dumps(dict(job), default=_path_text)
    except (TypeError, ValueError) as error:
        wanted = "wanted what a job file can say: texts, numbers, true, false, lists, mappings"
        raise SpecError([f"the job: {error}; {wanted}"]) from error


def _path_text(found: object) -> str:
    text = os.fspath(found) if isinstance(found, os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(f"Object of type {type(found).__name__} is not JSON serializable")
    return text


def text_of_file(path: Path) -> str:
    """The text of a job file; ``SpecError`` if it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SpecError(
            [f"{path}: the job file cannot be read: {reason}. Name a YAML job file."]
        ) from error
