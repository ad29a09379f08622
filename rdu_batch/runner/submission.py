"""What a submission to a Ray cluster is called, and what it came to. Pure.

A submission is one try of a job under Ray's Jobs API. Its id is the job's name, its logical date
and the number of the try, so that whoever submits the same day again finds the submission that is
there.

What it came to is told by the output's store: by the result of the driver epoch that this
submission took. Ray's own word only helps where a driver never came to an epoch, or was killed in
it. A log stream tells nothing.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

#: Tells a driver, by its environment, which submission it is of.
SUBMISSION_ID_ENV: Final = "RDU_BATCH_SUBMISSION_ID"
#: The name under which the job file is shipped.
SHIPPED_JOB_FILE: Final = "job.yaml"

#: The state of a submission that found nothing to do.
ALREADY_COMPLETE: Final = "already complete"

_ID = re.compile(r"[a-z0-9][a-z0-9-]*-[1-9][0-9]*")
#: Exit codes by which a driver says why it took no epoch (see ``errors.py``).
_TOO_MANY_DEAD: Final = 5
_TOLD_BY_DRIVER: Final = frozenset({2, 3, 4, 6, 8, 10, 12, 13, 14})


def submission_key(name: str, date: str | None) -> str:
    """What all tries of one job on one logical date share."""
    return f"{name}-{date}" if date else name


def submission_id(key: str, attempt: int) -> str:
    """The id of try ``attempt``, from 1."""
    return f"{key}-{attempt}"


def is_submission_id(text: str) -> bool:
    """Whether a text looks like an id of ours, rather than a URL."""
    return _ID.fullmatch(text) is not None


def attempt_of(key: str, found_id: str) -> int | None:
    """Which try of this key an id names; None for an id of another key."""
    rest = found_id.removeprefix(f"{key}-")
    is_ours = rest != found_id and rest.isascii() and rest.isdigit() and rest[0] != "0"
    return int(rest) if is_ours else None


def last_attempt(key: str, ids: Iterable[str]) -> int:
    """The highest try of this key among ids; 0 if there is none."""
    return max((attempt_of(key, found) or 0 for found in ids), default=0)


def entrypoint(python: str) -> str:
    """The shell command that Ray runs on the cluster, in the folder of what was shipped.

    Args:
        python: the interpreter there.
    """
    words = [
        python,
        "-m",
        "rdu_batch",
        "run",
        SHIPPED_JOB_FILE,
        "--address",
        "auto",
        "--ci",
        "none",
    ]
    # exec: Ray's stop reaches the driver itself, not a shell in front of it.
    return "exec " + shlex.join(words)


class RayStatus(StrEnum):
    """Where Ray says that a submission stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_ended(self) -> bool:
        """Whether it stays so."""
        return self not in (RayStatus.PENDING, RayStatus.RUNNING)


@dataclass(frozen=True)
class RayState:
    """What Ray says of a submission."""

    status: RayStatus
    message: str
    #: Of the driver's process; None if it did not end by itself.
    exit_code: int | None
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class StoreState:
    """What an output's store says of a submission."""

    #: That it took; None if it took none.
    epoch: int | None
    #: Of that epoch.
    result: Mapping[str, Any] | None
    #: Whether the output is complete, by whomever.
    is_complete: bool


@dataclass(frozen=True)
class Ending:
    """What a submission came to."""

    exit: int
    state: str
    message: str
    #: Of its epoch; None if it reported nothing.
    result: Mapping[str, Any] | None = None
    #: Its driver was killed, or never lived: a new submission would go on from what is durable.
    is_worth_another: bool = False


def ending_of(ray: RayState | None, store: StoreState) -> Ending | None:
    """What a submission came to; None while it may still be under way.

    Args:
        ray: what Ray says; None if it knows no such submission, or does not answer.
        store: what the store says.
    """
    if store.result is not None:
        return _reported(store.result)
    if ray is None or not ray.status.is_ended:
        return None
    if ray.status is RayStatus.STOPPED:
        return Ending(12, "stopped", "stopped by Ray; submit it again and it goes on")
    if ray.status is RayStatus.SUCCEEDED:
        return _succeeded(store)
    if store.epoch is not None:
        message = "its driver was killed before it could report; what is finished is kept"
        return Ending(12, "killed", f"{message} ({_oneline(ray.message)})", is_worth_another=True)
    if ray.exit_code == _TOO_MANY_DEAD and store.is_complete:
        return Ending(_TOO_MANY_DEAD, ALREADY_COMPLETE, "")
    if ray.exit_code in _TOLD_BY_DRIVER:
        return Ending(ray.exit_code, "failed", "its driver says why in the log")
    if ray.exit_code in (None, -9, -15, 137, 143):
        message = f"its driver was killed, or never started: {_oneline(ray.message)}"
        return Ending(13, "failed", message, is_worth_another=True)
    message = "rdu_batch could not run there; is it installed in the cluster's Python?"
    return Ending(1, "failed", f"{message} {_oneline(ray.message)}")


def _reported(result: Mapping[str, Any]) -> Ending:
    code = result.get("exit")
    if "error" in result:
        message = str(result.get("message", result["error"]))
        state = "stopped" if code == 12 else "failed"
        return Ending(int(code or 1), state, message, result)
    return Ending(int(code if code is not None else 1), str(result.get("state")), "", result)


def _succeeded(store: StoreState) -> Ending:
    """The driver ended with 0 and reported nothing: it found the job complete, or Ray is wrong."""
    if store.epoch is not None:
        message = "Ray says that it succeeded, but its driver reported nothing"
        return Ending(12, "killed", message, is_worth_another=True)
    if store.is_complete:
        return Ending(0, ALREADY_COMPLETE, "")
    message = (
        "Ray says that it succeeded, but the output is not complete; does the cluster see the same "
        "store, or was the output deleted since?"
    )
    return Ending(1, "failed", message)


def message_in(log: str, exit_code: int) -> str | None:
    """Why a driver ended, in its own words; None if its last line does not fit the exit code.

    Only to explain an ending that is known already.
    """
    last_line = log.rstrip().rpartition("\n")[2]
    try:
        document = json.loads(last_line)
    except ValueError:
        return None
    if not isinstance(document, dict) or document.get("exit") != exit_code:
        return None
    message = document.get("message")
    return message if isinstance(message, str) else None


def _oneline(text: str) -> str:
    """What Ray says, and of the end of the log that it adds the last line alone."""
    said, has_log, log = text.partition(", last available logs")
    lines = log.strip().splitlines()
    last = f": {lines[-1].strip()}" if has_log and len(lines) > 1 else ""
    return " ".join(f"{said}{last}".split())[:500]
