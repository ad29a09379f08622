"""What goes wrong in a driver, said in plain words.

Turns any failure of a driver into a ``StoreError`` that names the operation, the URL, the cause and
what to do. Does not decide what a failure means for the job.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rdu_batch.errors import ObjectMissing, RduBatchError, StoreError
from rdu_batch.storage.options_in_force import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

_DENIED = "access denied; check the permissions or credentials of the user that runs this"
_FULL = "no space left there; free some space or choose another place, then run again"
_WORDS_OF_ERRNO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.EFBIG: "the file would be larger than allowed there (see ulimit -f)",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "the file system is read-only; choose another place or mount it writable",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.EISDIR: "there is a folder of that name; choose another name",
    errno.ENAMETOOLONG: "the name is too long for that file system; choose a shorter one",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.EIO: "the storage reports an input/output error; check the disk or the service",
}
_NO_CREDENTIALS = (
    "the driver finds no credentials; set them in the environment of every machine, or as "
    "storage_options with ${ENV:NAME} references"
)
_WORDS_OF_STATUS = {
    401: _DENIED,
    403: _DENIED,
    429: "the service asks to slow down; run again later",
    503: "the service asks to slow down or is away; run again later",
    507: _FULL,
}
#: How far a chain of causes is followed; a guard against loops.
_MAX_CAUSES = 10


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what it was raised from, outermost first.

    Not what was merely being handled when it was raised: that may be an earlier request's error.
    """
    current: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if current is None:
            return
        yield current
        current = current.__cause__


def http_status(error: BaseException) -> int | None:
    """Find the HTTP status of a failed request anywhere in the chain of causes.

    Drivers differ: botocore keeps it in ``response``, Azure in ``status_code``, Google in
    ``code``. The outer error's class is no guide: some replies lead s3fs to a plain ``OSError``.
    """
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                return status
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            return status
        for field in ("status_code", "status", "code"):
            value = getattr(cause, field, None)
            if isinstance(value, int | str) and str(value).isdigit() and 400 <= int(value) < 600:
                return int(value)
    return None


def plain_words(error: BaseException) -> str:
    """Say in one sentence what the error means, how often it was tried, and what to do.

    Drivers quote URLs and headers: known secrets are hidden.
    """
    number = getattr(error, "errno", None)
    status = http_status(error)
    words = _WORDS_OF_STATUS.get(status or 0) or _WORDS_OF_ERRNO.get(number or 0)
    if words is None and isinstance(error, PermissionError):
        words = _DENIED
    if words is None and "Credential" in type(error).__name__:
        words = _NO_CREDENTIALS
    found = without_secrets(str(error)).strip() or type(error).__name__
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    return (
        f"{words} ({type(error).__name__}: {found}){notes}"
        if words
        else f"{type(error).__name__}: {found}{notes}"
    )


def _shown_cause(error: BaseException) -> BaseException | None:
    """The error as a cause that tracebacks may print; None if one of its chain holds a secret."""
    said = "\n".join(f"{cause!s} {cause!r}" for cause in causes(error))
    return error if without_secrets(said) == said else None


@contextmanager
def reading(action: str, url: str) -> Iterator[None]:
    """Turn failures inside into ``StoreError``, and a missing object into ``ObjectMissing``."""
    try:
        yield
    except RduBatchError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ObjectMissing(f"cannot {action} {url}: there is no such object") from _shown_cause(
            error
        )
    except Exception as error:  # noqa: BLE001 - drivers raise their own classes
        if http_status(error) == 404:
            raise ObjectMissing(
                f"cannot {action} {url}: there is no such object"
            ) from _shown_cause(error)
        raise StoreError(f"cannot {action} {url}: {plain_words(error)}") from _shown_cause(error)


@contextmanager
def writing(action: str, url: str) -> Iterator[None]:
    """Turn failures inside into ``StoreError``."""
    try:
        yield
    except RduBatchError:
        raise
    except FileNotFoundError as error:
        raise StoreError(
            f"cannot {action} {url}: the bucket, folder or source does not exist; "
            f"check the URL or create it ({without_secrets(str(error))})"
        ) from _shown_cause(error)
    except Exception as error:  # noqa: BLE001 - drivers raise their own classes
        raise StoreError(f"cannot {action} {url}: {plain_words(error)}") from _shown_cause(error)
