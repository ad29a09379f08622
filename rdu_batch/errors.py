"""Every error this program raises on purpose, and the exit code each one ends with.

    RduBatchError                1   internal error, unless a subclass says otherwise
    |-- UsageError               2   the command line asks for something impossible
    |-- SpecError                3   bad job file; lists every problem with file:line
    |-- OutputMismatch           3   the output holds another job; carries the differences
    |-- InputError               4   an input is missing, unreadable or changed since it was pinned
    |-- StoreError               6   a store operation failed; names the URL
    |   |-- ObjectMissing            the object is not there (callers often turn this into 4 or 8)
    |   |-- StoreDriverMissing       the fsspec driver of this URL is not installed; names the extra
    |   `-- CreateOnceUnsupported    the store cannot create an object exactly once
    |-- VerifyFailed             7   verify found damage
    |-- ArtifactError            8   artifact missing, damaged, or for another target
    |-- StoppedEarly            10   too many dead rows, or no session starts
    |-- WaitEnded               11   a wait ended before the job, which still runs
    |-- Interrupted             12   stopped by a signal or the deadline; a rerun resumes
    |-- ClusterError            13   Ray is unreachable or refuses
    |-- OutputOwned             14   another driver owns this output
    |-- SessionBroken            1   ends the worker, never the job: its lease is run elsewhere
    `-- RowError                 -   ends one row, which becomes a dead letter; never the lease

A message says what failed, where, what was found, what was wanted, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar


class RduBatchError(Exception):
    """Base of all errors raised on purpose; the command line prints it without a traceback."""

    exit_code: ClassVar[int] = 1
    #: For the JSON line: ``name`` and ``output`` of the job, where they are known.
    about: Mapping[str, str] = MappingProxyType({})


class UsageError(RduBatchError):
    """The command line asks for something impossible."""

    exit_code = 2


class SpecError(RduBatchError):
    """The job file is wrong. ``problems`` holds one sentence per mistake, each with its place."""

    exit_code = 3

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class OutputMismatch(RduBatchError):
    """The output folder belongs to another job, or to another format version."""

    exit_code = 3


class InputError(RduBatchError):
    """An input is missing, unreadable, of an unknown format, or changed since it was pinned."""

    exit_code = 4


class StoreError(RduBatchError):
    """A store operation failed. The message names the URL, the operation and the cause."""

    exit_code = 6


class ObjectMissing(StoreError):
    """There is no object at this URL."""


class StoreDriverMissing(StoreError):
    """The fsspec driver for this URL is not installed; the message names the extra to install."""


class CreateOnceUnsupported(StoreError):
    """The store cannot promise that an object is created exactly once."""


class VerifyFailed(RduBatchError):
    """An output does not hold what its manifest promises."""

    exit_code = 7


class ArtifactError(RduBatchError):
    """The artifact is missing, damaged, or was compiled for another target."""

    exit_code = 8


class StoppedEarly(RduBatchError):
    """The job was given up: too many dead rows, or no session starts or stays alive."""

    exit_code = 10


class WaitEnded(RduBatchError):
    """The time to wait is over, or the wait was interrupted; the submitted job still runs."""

    exit_code = 11


class Interrupted(RduBatchError):
    """A signal or the deadline stopped the job; what is finished is kept."""

    exit_code = 12


class ClusterError(RduBatchError):
    """The Ray cluster cannot be reached, refused the job, or can never give what it asks for."""

    exit_code = 13


class OutputOwned(RduBatchError):
    """Another driver is working on this output."""

    exit_code = 14


class SessionBroken(RduBatchError):
    """The session or its process failed. Ends the worker; its lease is run elsewhere.

    ``row`` is the ordinal of the row in progress, None if there was none; ``timed_out`` says that
    the process was killed because that row took longer than the row limit.
    """

    def __init__(self, message: str, row: int | None = None, *, timed_out: bool = False) -> None:
        self.row = row
        self.timed_out = timed_out
        super().__init__(message)


class RowError(RduBatchError):
    """One row cannot be predicted and becomes a dead letter.

    ``reason`` is the class written to the dead letter (see ``job/records.py``); the message is its
    detail and must be the same wherever and whenever the row is tried.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")
