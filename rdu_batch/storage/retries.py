"""Trying again: which failures pass by themselves, how long to wait, when to stop trying.

Around one request of a driver, or a few that may be repeated as a whole. Promises: at most
``NUM_TRIES`` tries and some 15 s of waiting; an error that does not pass is raised at once; a stop
of the run ends a wait. Does not: know which request may be repeated (``remote_store.py``).
"""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rdu_batch.errors import RduBatchError
from rdu_batch.storage.store_errors import causes, http_status

T = TypeVar("T")

NUM_TRIES = 5
_FIRST_PAUSE_S = 1.0
#: A wait is made of pieces this long, so that a stop is seen soon.
_PIECE_S = 0.1

_TRANSIENT_STATUS = frozenset({429, 500, 502, 503, 504})
_TRANSIENT_ERRNO = frozenset(
    {
        *(errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE),
        *(errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETRESET),
    }
)
#: What drivers call a connection that broke or a reply that was cut or never came.
_TRANSIENT_CLASSES = frozenset(
    {
        *("ConnectionError", "ConnectionClosedError", "ReadTimeoutError", "ConnectTimeoutError"),
        *("EndpointConnectionError", "HTTPClientError", "ResponseStreamingError"),
        *("IncompleteRead", "IncompleteReadError", "ProtocolError", "RemoteDisconnected"),
        *("ChunkedEncodingError", "ServerDisconnectedError", "ClientOSError"),
        *("ClientConnectorError", "ClientPayloadError", "ClientConnectionError"),
        *("ServiceRequestError", "ServiceResponseError", "ServiceRequestTimeoutError"),
        *("IncompleteReadError", "ServiceResponseTimeoutError", "FSTimeoutError"),
        *("ConnectError", "ReadError", "WriteError", "ConnectTimeout", "ReadTimeout"),
        *("WriteTimeout", "PoolTimeout", "RemoteProtocolError", "BadGatewayError"),
        "NoValidConnectionsError",
    }
)
_THROTTLING_WORDS = (
    *("slowdown", "slow down", "throttl", "toomanyrequests", "too many requests"),
    *("serverbusy", "server is busy", "ratelimit", "rate limit", "requestlimitexceeded"),
)
#: What paramiko says of a connection that broke; its class alone also means refused keys.
_BROKEN_SSH_WORDS = ("connection dropped", "not connected", "not active", "error reading ssh")


class Stops(Protocol):
    """What a wait must know of the run's stop request."""

    def is_requested(self) -> bool:
        """Whether a stop was asked for."""

    def check(self) -> None:
        """Raise if a stop was asked for."""


_stops: Stops | None = None


def end_waits_at(stops: Stops | None) -> None:
    """Have all waits of this process end when a stop is asked for; None to forget it."""
    global _stops  # noqa: PLW0603 - signals are the process's, and so is this
    _stops = stops


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment.

    Busy servers (429, 500, 502, 503, 504, words of throttling), connections that were dropped,
    reset or refused, replies that were cut, and timeouts. Not: what is missing, there already,
    denied, or wrong.
    """
    if isinstance(error, RduBatchError):
        return False
    if _is_broken_connection(error):
        # What a library says of a reply that was cut may look like a status.
        return True
    status = http_status(error)
    if status is not None:
        return status in _TRANSIENT_STATUS or (status != 404 and _is_throttled(error))
    if isinstance(
        error,
        FileNotFoundError
        | FileExistsError
        | PermissionError
        | NotADirectoryError
        | IsADirectoryError,
    ):
        return False
    return any(_is_broken_connection(cause) for cause in causes(error)) or _is_throttled(error)


def _is_broken_connection(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | EOFError):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO:
        return True
    if type(error).__module__.startswith("paramiko") or type(error) is OSError:
        said = str(error).lower()
        return any(words in said for words in _BROKEN_SSH_WORDS) or "socket is closed" in said
    return any(kind.__name__ in _TRANSIENT_CLASSES for kind in type(error).__mro__)


def _is_throttled(error: BaseException) -> bool:
    said = [str(cause).lower() for cause in causes(error)]
    return any(words in text for words in _THROTTLING_WORDS for text in said)


def pause_s(num_tries: int, chance: float) -> float:
    """Seconds to wait after so many tries: doubled each time, between half of it and all of it.

    Args:
        num_tries: how often it was tried so far; at least 1.
        chance: in [0, 1): spreads those who failed together.
    """
    return float(_FIRST_PAUSE_S * 2 ** (num_tries - 1) * (0.5 + chance / 2))


def wait(seconds: float) -> None:
    """Wait, but not past a stop of the run.

    Raises:
        Interrupted: a stop was asked for meanwhile; in the main thread alone.
    """
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, _PIECE_S))
        if _stops is not None and _stops.is_requested():
            if threading.current_thread() is threading.main_thread():
                _stops.check()
            return


@dataclass(frozen=True)
class Retries:
    """How often to try, and how to wait in between."""

    num_tries: int = NUM_TRIES
    wait: Callable[[float], None] = wait

    def call(self, do: Callable[[], T], *, before_next: Callable[[], None] | None = None) -> T:
        """Do something that may be repeated, until it succeeds or fails for good.

        Args:
            do: makes the request.
            before_next: called before each further try; may connect again.

        Raises:
            Exception: what ``do`` raised last, noted with how often it was tried.
            Interrupted: a stop was asked for during a wait.
        """
        number = 1
        while True:
            try:
                if number > 1 and before_next is not None:
                    before_next()
                return do()
            except Exception as error:  # drivers raise their own classes, not only OSError
                is_stopping = _stops is not None and _stops.is_requested()
                if number >= self.num_tries or is_stopping or not is_transient(error):
                    if number > 1:
                        error.add_note(f"tried {number} times")
                    raise
            self.wait(pause_s(number, random.random()))  # noqa: S311 - spreads, hides nothing
            number += 1
