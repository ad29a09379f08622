"""The way to a Ray cluster, or to one that is started for this run alone.

Promises: a stop is obeyed while Ray starts. Ray defers signals then for seconds and brings handlers
of its own; so it starts in a thread, where it can do neither, while the main thread waits and
listens. Does not: start workers; see ``ray_executor.py``.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Object store of a Ray that this program starts itself; only small messages go through it.
LOCAL_OBJECT_STORE_BYTES = 100 << 20
#: How long to wait for a first answer of a cluster's address.
REACH_TIMEOUT_S = 10.0


class RayConnection:
    """A connection of this process, which can have one at a time."""

    def __init__(self, address: str | None, resources: Mapping[str, float] | None = None) -> None:
        """Nothing is reached yet.

        Args:
            address: ``local`` starts a Ray; ``auto``, ``ray://...`` or ``host:port`` connects; None
                follows Ray's own rule (RAY_ADDRESS, then a running cluster, then a new local one).
            resources: custom ones that a Ray that is started here has; a running one has its own.
        """
        self._address = address
        self._thread = _ConnectingThread(address, resources or {})

    def open(self) -> None:
        """Reach the cluster, or start one on this machine; a signal's handler may raise in here.

        Raises:
            ClusterError: no cluster can be reached or started. Ends the job.
        """
        _check_reachable(self._address or os.environ.get("RAY_ADDRESS", ""))
        self._thread.start()
        self._thread.is_over.wait()
        if self._thread.failure is not None:
            raise self._thread.failure

    def close(self) -> None:
        """Leave the cluster; one that ``open`` started ends.

        Does not wait for a Ray that has not answered yet: it is left as soon as it has, or dies
        with this process.
        """
        self._thread.leave()


def is_half_made() -> bool:
    """Is a connection that nobody wants any more still being made?

    A process must then end by ``os._exit``: torn down in the middle, Ray aborts it.
    """
    return any(isinstance(thread, _ConnectingThread) for thread in threading.enumerate())


class _ConnectingThread(threading.Thread):
    """Connects, and then lives as long as the connection.

    It must: the processes of a Ray that is started here are children of this thread, and Linux ends
    them together with it.
    """

    def __init__(self, address: str | None, resources: Mapping[str, float]) -> None:
        super().__init__(name="Ray connection", daemon=True)
        self._address, self._resources = address, resources
        #: Set once there is a connection, or why there is none.
        self.is_over = threading.Event()
        self.failure: BaseException | None = None
        self._is_wanted = True
        self._may_end = threading.Event()
        #: Held by whoever looks whether there is a connection that nobody wants.
        self._lock = threading.Lock()

    def run(self) -> None:
        """Connect, and wait for the end."""
        try:
            with _children_in_groups_of_their_own():
                _connect(self._address, self._resources)
        except BaseException as failure:  # noqa: BLE001 - raised again where it is waited for
            self.failure = failure
        with self._lock:
            self.is_over.set()
            is_wanted = self._is_wanted
        if not is_wanted:
            _shut_down()
        self._may_end.wait()

    def leave(self) -> None:
        """Shut Ray down, at once or as soon as it is there."""
        with self._lock:
            self._is_wanted = False
            is_over = self.is_over.is_set()
        if is_over:
            _shut_down()
        self._may_end.set()
        if is_over:
            self.join()


_forking = threading.local()


@contextmanager
def _children_in_groups_of_their_own() -> Iterator[None]:
    """Inside, what this thread starts with a ``preexec_fn``, as Ray does, gets a process group.

    Who stops a run by a signal to its whole group, as ``timeout`` does, would end Ray first, and
    Ray's end aborts its driver in the middle of stopping.
    """
    _register_group_hook()
    _forking.for_ray = True
    try:
        yield
    finally:
        _forking.for_ray = False


@functools.cache
def _register_group_hook() -> None:
    os.register_at_fork(after_in_child=_leave_group)


def _leave_group() -> None:
    if getattr(_forking, "for_ray", False):
        os.setpgid(0, 0)


def _shut_down() -> None:
    import ray

    ray.shutdown()


def _connect(address: str | None, resources: Mapping[str, float]) -> None:
    # What Ray says of a start outside the main thread is known here.
    logging.getLogger("ray").setLevel(logging.ERROR)
    from ray.exceptions import RayError

    try:
        if address == "local":
            _start_local(resources)
        elif address is None and not os.environ.get("RAY_ADDRESS"):
            try:
                _init(address="auto")
            except ConnectionError:
                _start_local(resources)
        else:
            _init(address=address)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise _unreachable(address, error) from error


def _start_local(resources: Mapping[str, float]) -> None:
    _init(
        address="local",
        object_store_memory=LOCAL_OBJECT_STORE_BYTES,
        include_dashboard=False,
        resources=dict(resources),
    )


def _init(**options: Any) -> None:
    import ray

    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)


def _check_reachable(address: str) -> None:
    """Try the address once: ``ray.init`` itself keeps trying a dead one for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_TIMEOUT_S):
            pass
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str | None, error: Exception) -> ClusterError:
    return ClusterError(
        f"Ray at {address or 'its default address'} cannot be reached: {error}. "
        "Start one with `ray start --head`, name another with --address, or use "
        "--address local (a Ray for this job alone) or --executor inline (no Ray). A token that a "
        "cluster wants is looked for in RAY_AUTH_TOKEN and ~/.ray/auth_token."
    )
