"""A Ray cluster's Jobs API, over HTTP; nothing of the cluster is joined.

Promises: every request ends, by an answer or within ``REQUEST_TIMEOUT_S``; what a cluster cannot
answer is a ``ClusterError``; a submission it does not know is None. Does not: judge what a
submission came to (``submission.py``), or follow a log by a stream, which ends when a connection
does and says nothing of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

from rdu_batch.errors import ClusterError
from rdu_batch.runner.ray_address import (
    Door,
    is_http,
    knock,
    last_started_here,
    speaking_to,
    without_variables,
)
from rdu_batch.runner.ray_tokens import headers_for_proxy, token_at_hand
from rdu_batch.runner.submission import (
    SHIPPED_JOB_FILE,
    SUBMISSION_ID_ENV,
    RayState,
    RayStatus,
    entrypoint,
)

REQUEST_TIMEOUT_S: Final = 30.0
#: Where Ray's own client looks first, whatever address it is given.
_ADDRESS_VARIABLES: Final = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_NOT_FOUND: Final = 404
_NAME_IT: Final = "Name its dashboard with --address http://HOST:8265, or in RAY_API_SERVER_ADDRESS"
#: How Ray's client begins to say that its address leads to something else.
_WRONG_PLACE: Final = "Version check returned 404"
_AUTHORIZATION: Final = "Authorization"
#: What Ray's head says while none of its agents is there.
_TRY_AGAIN: Final = "try again later"

Answer = TypeVar("Answer")


class SubmissionExists(ClusterError):
    """The cluster already has a submission of this id: another submitter was first."""


class ClusterRefuses(ClusterError):
    """Something answers at the address and will not do it, however often it is asked."""


class ClusterBusy(ClusterError):
    """The cluster answers and cannot take a submission yet, such as one that has just begun."""


class RayJobs:
    """The submissions of one cluster."""

    def __init__(self, address: str | None) -> None:
        """Reach the cluster.

        Args:
            address: ``http://HOST:8265`` of its dashboard, or what ``ray.init`` takes; None follows
                RAY_API_SERVER_ADDRESS and RAY_ADDRESS, then a cluster of this machine.

        Raises:
            ClusterError: it does not answer.
        """
        self._address = address
        self._client: Any = self._asked(lambda: _open_client(address))

    def state(self, submission_id: str) -> RayState | None:
        """Where Ray says that a submission stands; None if Ray does not know it."""
        found = self._asked(lambda: self._client.get_job_info(submission_id))
        if found is None:
            return None
        return RayState(
            RayStatus(str(found.status)),
            found.message or "",
            found.driver_exit_code,
            found.metadata or {},
        )

    def ids(self) -> list[str]:
        """Every submission that Ray remembers."""
        found = self._asked(self._client.list_jobs) or []
        return [job.submission_id for job in found if job.submission_id]

    def submit(
        self, submission_id: str, job_file: str, metadata: dict[str, str], python: str
    ) -> None:
        """Submit ``rdu-batch run`` of a job file.

        Raises:
            SubmissionExists: Ray has one of this id.
            ClusterBusy: Ray cannot take it yet.
            ClusterError: Ray does not answer, or refuses.
        """
        with TemporaryDirectory(prefix="rdu_batch_") as folder:
            (Path(folder) / SHIPPED_JOB_FILE).write_text(job_file)
            self._asked(
                lambda: self._client.submit_job(
                    entrypoint=entrypoint(python),
                    submission_id=submission_id,
                    # Ray shows both to whoever may ask it: no secret goes into either.
                    metadata=metadata,
                    runtime_env={
                        "working_dir": folder,
                        "env_vars": {SUBMISSION_ID_ENV: submission_id},
                    },
                )
            )

    def stop(self, submission_id: str) -> bool:
        """Ask Ray to stop a submission; False if it had ended, or Ray does not know it."""
        return bool(self._asked(lambda: self._client.stop_job(submission_id)))

    def log(self, submission_id: str) -> str | None:
        """All that its driver has printed; None if Ray does not know it."""
        return self._asked(lambda: self._client.get_job_logs(submission_id))

    def _asked(self, ask: Callable[[], Answer]) -> Answer | None:
        from ray.exceptions import RayError
        from requests.exceptions import JSONDecodeError, RequestException

        try:
            return ask()
        except ClusterError:
            raise
        except _wants_token() as error:
            raise ClusterRefuses(
                f"{self._place()} refuses: {_first_line(error)}. A token that it wants is looked "
                "for in RAY_AUTH_TOKEN and ~/.ray/auth_token"
            ) from error
        except JSONDecodeError as error:
            raise ClusterRefuses(
                f"{self._place()} answers, but not as Ray's dashboard does. {_NAME_IT}"
            ) from error
        except _Refused as refused:
            if refused.status_code == _NOT_FOUND:
                return None
            if "already exists" in str(refused):
                raise SubmissionExists(str(refused)) from refused
            kind = ClusterBusy if _TRY_AGAIN in str(refused) else ClusterError
            raise kind(f"{self._place()} refused: {refused}") from refused
        # What Ray's client raises for an address that it cannot reach is any of these.
        except (RayError, RequestException, OSError, RuntimeError, ValueError) as error:
            if _WRONG_PLACE in str(error):
                raise ClusterRefuses(
                    f"{self._place()} answers, but has no Jobs API. {_NAME_IT}"
                ) from error
            raise ClusterError(
                f"{self._place()} does not answer: {_first_line(error)}. {_NAME_IT}"
            ) from error

    def _place(self) -> str:
        variables = (os.environ.get(name) for name in _ADDRESS_VARIABLES)
        return f"Ray at {self._address or next(filter(None, variables), 'its default address')}"


class _Refused(Exception):
    """An answer of the server that is none of the good ones."""

    def __init__(self, status_code: int, text: str) -> None:
        self.status_code = status_code
        super().__init__(f"HTTP {status_code}: {_last_line(text)}")


def _wants_token() -> Any:
    """What Ray's client raises where a token is missing or wrong; older releases have no tokens."""
    import ray.exceptions

    return getattr(ray.exceptions, "AuthenticationError", ())


def _open_client(address: str | None) -> Any:
    from ray.job_submission import JobSubmissionClient

    # They say at INFO that a package is made and uploaded, by levels of their own.
    for name in ("dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        """Ray's, whose requests end, and bring a token that is at hand where one is wanted."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            options.setdefault("timeout", REQUEST_TIMEOUT_S)
            try:
                return super()._do_request(method, endpoint, **options)
            except _wants_token():
                token = token_at_hand()
                if token is None or _AUTHORIZATION in self._headers:
                    raise
                self._headers[_AUTHORIZATION] = f"Bearer {token}"
            return super()._do_request(method, endpoint, **options)

        def _raise_error(self, answer: Any) -> None:
            raise _Refused(answer.status_code, answer.text)

    headers = headers_for_proxy()
    given = address
    if given in (None, "auto"):
        given = next(filter(None, map(os.environ.get, _ADDRESS_VARIABLES)), "auto")
    place = _dashboard_or_head(given)
    with without_variables(*_ADDRESS_VARIABLES):
        if "://" in place:
            return Client(place, headers=headers)
        # Its head is asked for its dashboard.
        with speaking_to(_door_of_head(place, given), place):
            return Client(place, headers=headers)


def _dashboard_or_head(given: str) -> str:
    """The URL of a dashboard, or ``HOST:PORT`` of a head that has one."""
    if given.startswith("ray://"):
        raise ClusterRefuses(f"{given} is the address of Ray's client server. {_NAME_IT}")
    if "://" in given:
        return given
    if given != "auto":
        return f"http://{given}" if is_http(given) else given
    found = last_started_here()
    if found is None:
        raise ClusterError(f"no Ray was started on this machine. {_NAME_IT}")
    return found


def _door_of_head(place: str, given: str) -> Door:
    door = knock(place)
    if door is Door.SILENT:
        which = f"the Ray that was started here last, {place}," if given == "auto" else place
        raise ClusterError(f"{which} does not answer. {_NAME_IT}")
    if door is Door.ELSE:
        raise ClusterRefuses(f"what answers at {place} is no Ray. {_NAME_IT}")
    return door


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
