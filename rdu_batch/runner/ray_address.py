"""Where a Ray cluster is, whether it answers there, and whether it wants a token.

Ray itself keeps trying a dead address for many minutes, and ends the whole process a minute after a
cluster's head has gone. So its door is knocked at first: one small request, which a living head
answers within milliseconds, whatever else it does.

Promises: no request here waits longer than ``KNOCK_TIMEOUT_S``. Does not: connect; see
``ray_connection.py`` and ``ray_jobs.py``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final

from rdu_batch.errors import ClusterError
from rdu_batch.runner.ray_tokens import MODE_VARIABLE, token_at_hand

KNOCK_TIMEOUT_S: Final = 5.0
#: How long a head may be silent in the middle of a job. Ray ends this process after 60 seconds of
#: it, and takes 15 of them to be left in order.
LOST_AFTER_S: Final = 30.0
_KNOCK_AGAIN_S: Final = 0.5
#: A question that every head of Ray 2 answers without looking anything up.
_QUESTION: Final = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_NO_GRPC: Final = "Failed parsing HTTP/2"


class Door(Enum):
    """What stands at an address."""

    SILENT = "nothing answers"
    OPEN = "a head of Ray"
    WANTS_TOKEN = "a head of Ray that wants a token"  # noqa: S105 - no token
    ELSE = "something that is no head of Ray"
    #: A head behind TLS is not asked.
    UNKNOWN = "not asked"


def knock(address: str) -> Door:
    """Ask what stands at ``HOST:PORT``."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return Door.UNKNOWN
    import grpc

    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(_QUESTION, request_serializer=bytes, response_deserializer=bytes)
        try:
            ask(b"", timeout=KNOCK_TIMEOUT_S)
        except grpc.RpcError as error:
            return _door_of(error, grpc.StatusCode)
    return Door.OPEN


def _door_of(error: Any, codes: Any) -> Door:
    if error.code() == codes.UNAUTHENTICATED:
        return Door.WANTS_TOKEN
    if error.code() in (codes.UNAVAILABLE, codes.DEADLINE_EXCEEDED):
        return Door.ELSE if _NO_GRPC in (error.details() or "") else Door.SILENT
    # It speaks as a head does, and may be one of a release that knows no such question.
    return Door.OPEN


def is_http(address: str) -> bool:
    """Whether what answers at ``HOST:PORT`` speaks HTTP, as a dashboard does; a head does not."""
    import requests

    try:
        requests.get(f"http://{address}/", timeout=KNOCK_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException:
        return False
    return True


def last_started_here() -> str | None:
    """``HOST:PORT`` of the Ray that was started last on this machine, whether it lives or not."""
    from ray._private.services import canonicalize_bootstrap_address

    with without_variables("RAY_ADDRESS"):
        found: str | None = canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
    return found


@contextmanager
def without_variables(*names: str) -> Iterator[None]:
    """Inside, an address that is given counts: Ray would prefer those of the environment."""
    hidden = {name: os.environ.pop(name, None) for name in names}
    try:
        yield
    finally:
        os.environ.update({name: text for name, text in hidden.items() if text is not None})


@contextmanager
def speaking_to(door: Door, address: str) -> Iterator[None]:
    """Inside, Ray in this process shows a token if that head wants one, and none if it does not.

    Left to itself, Ray shows one wherever one lies: a head without tokens then takes this process
    for a cluster of its own kind, and its workers are turned away. Where RAY_AUTH_MODE is set, it
    is left.

    Raises:
        ClusterError: the head wants a token, and none is at hand.
    """
    if os.environ.get(MODE_VARIABLE) or door not in (Door.OPEN, Door.WANTS_TOKEN):
        yield
        return
    if door is Door.WANTS_TOKEN and token_at_hand() is None:
        raise ClusterError(
            f"Ray at {address} wants a token, which is looked for in RAY_AUTH_TOKEN and "
            "~/.ray/auth_token"
        )
    os.environ[MODE_VARIABLE] = "token" if door is Door.WANTS_TOKEN else "disabled"
    read_mode_again()
    try:
        yield
    finally:
        del os.environ[MODE_VARIABLE]
        read_mode_again()


def read_mode_again() -> None:
    """Have Ray's core, which read the variable when it was loaded, read it again."""
    from ray import _raylet

    # Releases without tokens have no such thing, and need none.
    config = getattr(_raylet, "Config", None)
    if config is not None and hasattr(config, "initialize"):
        config.initialize("")


class Pulse:
    """Whether the head of a cluster that this process is connected to still answers."""

    def __init__(
        self,
        address: str | None,
        *,
        is_stopping: Callable[[], bool],
        ask: Callable[[str], Door] = knock,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is asked yet.

        Args:
            address: of the head; None for one that cannot be asked.
            is_stopping: whether to stop waiting for it.
            ask: knocks.
            now_s: monotonic seconds.
            sleep: waits.
        """
        self._address, self._is_stopping = address, is_stopping
        self._ask, self._now_s, self._sleep = ask, now_s, sleep

    def check(self) -> None:
        """Return once the head answers, at once as a rule, or a stop was asked for.

        To be called before what would wait for the head, and where a worker is lost.

        Raises:
            ClusterError: it was silent for ``LOST_AFTER_S``. Ends the job.
        """
        if self._address is None:
            return
        began_s = self._now_s()
        while self._ask(self._address) is Door.SILENT and not self._is_stopping():
            if self._now_s() - began_s >= LOST_AFTER_S:
                raise ClusterError(
                    f"the head of the Ray cluster, {self._address}, has not answered for "
                    f"{LOST_AFTER_S:g} s: it is gone, or cannot be reached. Finished rows are "
                    "kept; run the same command again, on a cluster that lives, to go on"
                )
            self._sleep(_KNOCK_AGAIN_S)
