"""The storage options of this process's job: which options a URL is opened with.

Whoever takes part in a job says once which spec it works on (``use_storage_options``); from then on
``open_store`` finds the options of a URL by itself. Promises: references to the environment are
kept as they were written and resolved at each opening, in the process that opens. Does not: keep
a resolved value.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import StoreError
from rdu_batch.job.secret_words import hide_secrets
from rdu_batch.job.storage_options import VariableUnset, resolve_options, secrets_of
from rdu_batch.storage.urls import lies_in, split_object, split_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rdu_batch.job.spec import JobSpec

#: Drivers find these in the environment by themselves.
_SECRET_VARIABLES = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY"),
    *("AZURE_STORAGE_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN"),
    *("AZURE_CLIENT_SECRET", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
)

_in_force: dict[str, Mapping[str, Any]] = {}


def use_storage_options(spec: JobSpec, *, more_outputs: Iterable[str] = ()) -> None:
    """Open this job's URLs with its options from now on; those of another job are forgotten.

    Args:
        spec: of the job.
        more_outputs: URLs of other outputs that are opened as the job's own.
    """
    _in_force.clear()
    for url in (spec.output.url, *more_outputs):
        _in_force.setdefault(url, spec.output.storage_options)
    if spec.session.artifact is not None:
        _in_force.setdefault(spec.session.artifact, spec.session.storage_options)
    for url in spec.input.urls:
        for folder in _folders_of(url):
            _in_force.setdefault(folder, spec.input.storage_options)


def _folders_of(url: str) -> list[str]:
    """The folders that are opened for an input URL."""
    if any(mark in url for mark in "*?["):
        return [split_pattern(url)[0]]
    # Without a slash at its end it may be a folder, or a file in the one above.
    return [url] if url.endswith("/") else [url, split_object(url)[0]]


def options_of(url: str) -> dict[str, Any]:
    """The options to open a URL with: of the job's nearest folder around it; {} where none is.

    Raises:
        StoreError: they refer to an environment variable that is not set in this process.
    """
    try:
        return resolve_options(_written_options(url), os.environ)
    except VariableUnset as unset:
        raise StoreError(
            f"cannot open {url}: the environment variable {unset.variable} is not set in this "
            f"process, and the storage option {unset.option} refers to it; set it wherever the "
            "job's processes run (driver, workers), and run again"
        ) from None


def _written_options(url: str) -> Mapping[str, Any]:
    around = [folder for folder in _in_force if lies_in(url, folder)]
    return _in_force[max(around, key=len)] if around else {}


def without_secrets(text: str) -> str:
    """A text, such as a driver's error, as it may be shown: without any secret known here."""
    found = {os.environ.get(name, "") for name in _SECRET_VARIABLES}
    for options in _in_force.values():
        found |= secrets_of(options, os.environ)
    return hide_secrets(text, found)
