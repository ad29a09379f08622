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
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import ClusterError
from rdu_batch.runner.ray_address import (
    Door,
    knock,
    last_started_here,
    read_mode_again,
    speaking_to,
)
from rdu_batch.runner.ray_tokens import MODE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Object store of a Ray that this program starts itself; only small messages go through it.
LOCAL_OBJECT_STORE_BYTES = 100 << 20
#: How long to wait for a first answer of a cluster's address.
REACH_TIMEOUT_S = 10.0


class RayConnection:
    """A connection of this process, which can have one at a time."""

    def __init__(
        self,
        address: str | None,
        resources: Mapping[str, float] | None = None,
        *,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Nothing is reached yet.

        Args:
            address: ``local`` starts a Ray; ``auto``, ``ray://...`` or ``host:port`` connects; None
                follows Ray's own rule (RAY_ADDRESS, then a running cluster, then a new local one).
            resources: custom ones that a Ray that is started here has; a running one has its own.
            say: told which Ray it is, where nobody named it.
        """
        self._address = address
        self._thread = _ConnectingThread(address, resources or {}, say)
        self._is_held = False

    @property
    def head(self) -> str | None:
        """``HOST:PORT`` of the cluster's head; None of one that is reached by a proxy."""
        return self._thread.head

    def open(self) -> None:
        """Reach the cluster, or start one on this machine; a signal's handler may raise in here.

        Raises:
            ClusterError: no cluster can be reached or started, or this process is connected to one
                already. Ends the job.
        """
        self._is_held = _held.acquire(blocking=False)
        if not self._is_held:
            raise ClusterError(
                "another run of this process is connected to Ray, and a process can have one "
                "connection: run one after the other, or each in a process of its own"
            )
        _check_reachable(_named(self._address) or "")
        self._thread.start()
        self._thread.is_over.wait()
        if self._thread.failure is not None:
            raise self._thread.failure

    def close(self) -> None:
        """Leave the cluster; one that ``open`` started ends.

        Does not wait for a Ray that has not answered yet: it is left as soon as it has, or dies
        with this process.
        """
        if self._is_held:
            self._thread.leave()
            self._is_held = False
            _held.release()


#: Held by the one connection of this process.
_held = threading.Lock()


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

    def __init__(
        self, address: str | None, resources: Mapping[str, float], say: Callable[[str], None]
    ) -> None:
        super().__init__(name="Ray connection", daemon=True)
        self._address, self._resources, self._say = address, resources, say
        #: Set once there is a connection, or why there is none.
        self.is_over = threading.Event()
        self.failure: BaseException | None = None
        self.head: str | None = None
        self._is_wanted = True
        self._may_end = threading.Event()
        #: Held by whoever looks whether there is a connection that nobody wants.
        self._lock = threading.Lock()

    def run(self) -> None:
        """Connect, and wait for the end."""
        with ExitStack() as until_left:
            try:
                with _children_in_groups_of_their_own():
                    self.head = _connect(self._address, self._resources, self._say, until_left)
            except BaseException as failure:  # noqa: BLE001 - raised again where it is waited for
                self.failure = failure
            with self._lock:
                self.is_over.set()
                is_wanted = self._is_wanted
            if not is_wanted and self.failure is None:
                _shut_down()
            self._may_end.wait()

    def leave(self) -> None:
        """Shut Ray down, at once or as soon as it is there; what is not ours is left alone."""
        with self._lock:
            self._is_wanted = False
            is_over = self.is_over.is_set()
        if is_over and self.failure is None:
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


def _connect(
    address: str | None,
    resources: Mapping[str, float],
    say: Callable[[str], None],
    until_left: ExitStack,
) -> str | None:
    """Connect; the address of the head. ``until_left`` is closed when the connection is."""
    # What Ray says of a start outside the main thread is known here.
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        raise ClusterError(
            "this process is connected to Ray already, and a run makes a connection of its own: "
            "call ray.shutdown() before it, or run the job in a process of its own"
        )
    try:
        named = _named(address)
        found = _found_here(named, say) if named in (None, "auto") else named
        if found is None or found == "local":
            until_left.callback(_restore_mode, os.environ.get(MODE_VARIABLE))
            _start_local(resources)
        else:
            _join(found, until_left)
        return None if named is not None and "://" in named else _head_of_this_connection()
    except (RayError, OSError, RuntimeError, ValueError, AssertionError) as error:
        if ray.is_initialized():
            _shut_down()
        raise _unreachable(address, error) from error


def _named(address: str | None) -> str | None:
    """The address that counts: RAY_ADDRESS tells a driver that Ray has started its cluster's."""
    if address in (None, "auto"):
        return os.environ.get("RAY_ADDRESS") or address
    return address


def _found_here(named: str | None, say: Callable[[str], None]) -> str | None:
    """The cluster that was started on this machine, if it lives.

    Raises:
        ConnectionError: none does, and one was asked for.
    """
    found = last_started_here()
    if found is None or knock(found) is Door.SILENT:
        gone = "none was started here" if found is None else f"{found}, started here last, is gone"
        if named == "auto":
            raise ConnectionError(gone)
        if found is not None:
            say(f"the Ray at {gone}; starting one for this job")
        return None
    say(f"joining the Ray at {found}, which was started here (--address local starts one)")
    return found


def _join(address: str, until_left: ExitStack) -> None:
    if "://" not in address:
        door = knock(address)
        if door is Door.ELSE:
            raise ConnectionError(
                "what answers is no head of Ray, whose port is 6379 as a rule; `submit` takes the "
                "address of a dashboard, this takes that of the head"
            )
        until_left.enter_context(speaking_to(door, address))
    _init(address=address)


def _restore_mode(before: str | None) -> None:
    """A Ray that is started here wants tokens by itself, and has this process remember it."""
    if before is None:
        os.environ.pop(MODE_VARIABLE, None)
        read_mode_again()


def _head_of_this_connection() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


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
