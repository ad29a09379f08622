"""Workers as Ray actors: one actor a worker, its session in a child process of the actor.

Ray's own restarts and retries are off: attempts are ours to count. Through Ray go only leases and
small outcomes, as JSON text. Importing this module imports Ray.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from rdu_batch.errors import ClusterError, RduBatchError, SessionBroken, SpecError
from rdu_batch.job.spec import WorkersSpec
from rdu_batch.runner.executor import JobFailed, TaskDone, WorkerEvent, WorkerLost, WorkerReady
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import LeaseDone, SealDone, Task, from_wire, to_wire
from rdu_batch.runner.session_host import SessionHost, error_of
from rdu_batch.runner.session_process import error_document

#: Object store of a Ray that this program starts itself; only small messages go through it.
LOCAL_OBJECT_STORE_BYTES = 100 << 20
#: How long idle workers get to tidy up at the end of a run.
CLOSE_TIMEOUT_S = 1.0
#: How long to wait for a first answer of a cluster's address.
REACH_TIMEOUT_S = 10.0


class WorkerActor:
    """Lives in a Ray actor: owns the host of one session process.

    Every method answers with JSON text and never raises on purpose, so that an exception that
    reaches the driver means that the actor itself is broken.
    """

    def __init__(self, context_json: str) -> None:
        self._context = JobContext.from_json(context_json)
        self._host: SessionHost | None = None

    def open(self) -> str:
        """Start the session process and wait until its session is open."""
        try:
            self._host = SessionHost(self._context)
            self._host.wait_ready(self._context.spec.limits.start_timeout_s)
        except RduBatchError as error:
            return json.dumps({"error": error_document(error, str(error))})
        return json.dumps({"ready": {"pid": os.getpid(), "session_pid": self._host.pid}})

    def run(self, task_json: str) -> str:
        """Run one task in the session process."""
        task = from_wire(json.loads(task_json))
        if self._host is None or isinstance(task, LeaseDone | SealDone):
            raise ValueError(f"not a task for an open worker: {task_json}")
        try:
            return json.dumps({"answer": to_wire(self._host.run(task))})
        except RduBatchError as error:
            return json.dumps({"error": error_document(error, str(error))})

    def close(self) -> None:
        """End the session process and remove its folder."""
        if self._host is not None:
            self._host.close()


@dataclass
class _Worker:
    actor: Any
    started_s: float
    call: Any


class RayExecutor:
    """The workers of one job on a Ray cluster that ``connect`` has reached."""

    def __init__(self, context: JobContext) -> None:
        workers = context.spec.workers
        self._context_json = context.to_json()
        try:
            self._actor_class: Any = ray.remote(WorkerActor).options(
                num_cpus=workers.cpus,
                num_gpus=workers.gpus,
                resources=dict(workers.resources),
                max_restarts=0,
                max_task_retries=0,
            )
        except ValueError as error:
            raise SpecError([f"workers: Ray refuses what one worker reserves: {error}"]) from error
        self._workers: dict[int, _Worker] = {}
        cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.num_slots = _num_slots(cluster, workers)

    def start_worker(self, worker_id: int) -> None:
        """Create the actor and call ``open`` on it."""
        actor: Any = self._actor_class.remote(self._context_json)
        self._workers[worker_id] = _Worker(actor, time.monotonic(), actor.open.remote())

    def assign(self, worker_id: int, task: Task) -> None:
        """Call ``run`` on the worker's actor."""
        worker = self._workers[worker_id]
        worker.call = worker.actor.run.remote(json.dumps(to_wire(task)))

    def next_events(self, timeout_s: float) -> list[WorkerEvent]:
        """Wait for answers of any worker."""
        calls = {worker.call: wid for wid, worker in self._workers.items() if worker.call}
        if not calls:
            return []
        done, _ = ray.wait(list(calls), num_returns=1, timeout=timeout_s)
        return [self._event_of(calls[call], call) for call in done]

    def stop(self) -> None:
        """Kill all actors; their session processes die with them."""
        idle = [worker for worker in self._workers.values() if worker.call is None]
        # Tidying up is worth a second, not more: a folder left behind is removed by the next run.
        if idle:
            closing = [worker.actor.close.remote() for worker in idle]
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for worker in self._workers.values():
            ray.kill(worker.actor)
        self._workers.clear()

    def _event_of(self, worker_id: int, call: Any) -> WorkerEvent:
        worker = self._workers[worker_id]
        worker.call = None
        try:
            message = json.loads(ray.get(call))
        except RayTaskError as error:
            # The actor's own code failed, so it would fail again: not the node's doing.
            return self._lost(worker_id, f"the actor failed: {error}", session_died=True)
        except RayError as error:
            return self._lost(worker_id, f"the actor was lost: {error}", session_died=False)
        if "ready" in message:
            return WorkerReady(worker_id, time.monotonic() - worker.started_s)
        if "answer" in message:
            answer = from_wire(message["answer"])
            if not isinstance(answer, LeaseDone | SealDone):
                raise ValueError(f"worker {worker_id} answered {message!r}")
            return TaskDone(worker_id, answer)
        failure = error_of(message["error"])
        if isinstance(failure, SessionBroken):
            self._drop(worker_id)
            row, timed_out = failure.row, failure.timed_out
            return WorkerLost(worker_id, str(failure), True, row, timed_out)
        return JobFailed(worker_id, failure)

    def _lost(self, worker_id: int, cause: str, *, session_died: bool) -> WorkerLost:
        self._drop(worker_id)
        return WorkerLost(worker_id, cause, session_died)

    def _drop(self, worker_id: int) -> None:
        ray.kill(self._workers.pop(worker_id).actor)


def connect(address: str | None) -> None:
    """Reach a Ray cluster, or start one on this machine.

    Args:
        address: ``local`` starts one; ``auto``, ``ray://...`` or ``host:port`` connects; None
            follows Ray's own rule (RAY_ADDRESS, then a running cluster, then a new local one).

    Raises:
        ClusterError: no cluster can be reached or started. Ends the job.
    """
    _check_reachable(address or os.environ.get("RAY_ADDRESS", ""))
    options: dict[str, Any] = {}
    if address == "local":
        options = {"object_store_memory": LOCAL_OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise _unreachable(address, error) from error


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
        "--address local (a Ray for this job alone) or --executor inline (no Ray)."
    )


def disconnect() -> None:
    """Leave the cluster; a cluster that ``connect`` started ends."""
    ray.shutdown()


def _num_slots(cluster: dict[str, float], workers: WorkersSpec) -> int:
    """How many workers the cluster's resources hold at once; at least 1."""
    wants = {"CPU": workers.cpus, "GPU": workers.gpus, **workers.resources}
    slots = [cluster.get(name, 0.0) // want for name, want in wants.items() if want > 0]
    return max(1, int(min(slots, default=1)))
