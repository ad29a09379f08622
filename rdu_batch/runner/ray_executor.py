"""Workers as Ray actors: one actor a worker, its session in a child process of the actor.

Ray's own restarts and retries are off: attempts are ours to count. Through Ray go only leases and
small outcomes, as JSON text. Importing this module imports Ray.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from rdu_batch.errors import RduBatchError, SessionBroken, SpecError
from rdu_batch.job.spec import WorkersSpec
from rdu_batch.runner.executor import (
    JobFailed,
    TaskDone,
    WorkerEvent,
    WorkerLeaving,
    WorkerLost,
    WorkerReady,
)
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.leases import LeaseDone, SealDone, Task, from_wire, to_wire
from rdu_batch.runner.ray_address import Pulse
from rdu_batch.runner.session_host import error_of
from rdu_batch.runner.session_keeper import Loss, SessionKeeper
from rdu_batch.runner.session_process import error_document

#: How long idle workers get to tidy up at the end of a run.
CLOSE_TIMEOUT_S = 1.0
#: How often it is looked for nodes that go away.
NODES_INTERVAL_S = 5.0


class WorkerActor:
    """Lives in a Ray actor: owns one session process and what outlives it.

    Every method answers with JSON text and never raises on purpose, so that an exception that
    reaches the driver means that the actor itself is broken.
    """

    def __init__(self, context_json: str, worker_id: int) -> None:
        self._context = JobContext.from_json(context_json)
        self._worker_id = worker_id
        self._session: SessionKeeper | None = None

    def open(self) -> str:
        """Start the session process and wait until its session is open."""
        try:
            self._session = SessionKeeper(self._context, self._worker_id)
            self._session.wait_ready()
        except RduBatchError as error:
            return json.dumps({"error": error_document(error, str(error))})
        node = ray.get_runtime_context().get_node_id()
        ready = {"pid": os.getpid(), "session_pid": self._session.session_pid, "node": node}
        return json.dumps({"ready": ready})

    def run(self, task_json: str) -> str:
        """Run one task in the session process; its death is told with what was kept."""
        task = from_wire(json.loads(task_json))
        if self._session is None or isinstance(task, LeaseDone | SealDone):
            raise ValueError(f"not a task for an open worker: {task_json}")
        try:
            answer = self._session.run(task)
        except RduBatchError as error:
            return json.dumps({"error": error_document(error, str(error))})
        if isinstance(answer, Loss):
            return json.dumps({"loss": answer.to_json()})
        return json.dumps({"answer": to_wire(answer)})

    def close(self) -> None:
        """End the session process and remove its folder."""
        if self._session is not None:
            self._session.close()


@dataclass
class _Worker:
    actor: Any
    started_s: float
    call: Any
    #: Of the node that it lives on; empty until it is ready.
    node: str = ""
    is_leaving: bool = False


class RayExecutor:
    """The workers of one job on a Ray cluster that ``connect`` has reached."""

    def __init__(self, context: JobContext, pulse: Pulse) -> None:
        workers = context.spec.workers
        self._pulse = pulse
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
        self._wanted = workers
        self._workers: dict[int, _Worker] = {}
        self._last_look_s = time.monotonic()

    @property
    def num_slots(self) -> int:
        """How many workers the cluster's resources hold at once now; at least 1."""
        self._pulse.check()
        cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return _num_slots(cluster, self._wanted)

    def missing_resources(self) -> list[str]:
        """What one worker reserves and the whole cluster has less of now, in words."""
        cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        wants = _wants(self._wanted)
        return [
            f"{name} {want:g} (it has {cluster.get(name, 0.0):g})"
            for name, want in wants.items()
            if cluster.get(name, 0.0) < want
        ]

    def start_worker(self, worker_id: int) -> None:
        """Create the actor and call ``open`` on it."""
        actor: Any = self._actor_class.remote(self._context_json, worker_id)
        self._workers[worker_id] = _Worker(actor, time.monotonic(), actor.open.remote())

    def assign(self, worker_id: int, task: Task) -> None:
        """Call ``run`` on the worker's actor."""
        worker = self._workers[worker_id]
        worker.call = worker.actor.run.remote(json.dumps(to_wire(task)))

    def next_events(self, timeout_s: float) -> list[WorkerEvent]:
        """Wait for answers of any worker; look now and then whether nodes go away.

        Raises:
            ClusterError: the cluster's head is gone. Ends the job.
        """
        leaving = self._newly_leaving()
        if leaving:
            return leaving
        calls = {worker.call: wid for wid, worker in self._workers.items() if worker.call}
        if not calls:
            time.sleep(timeout_s)  # Nobody works: what comes next is the caller's doing.
            return []
        done, _ = ray.wait(list(calls), num_returns=1, timeout=timeout_s)
        return [self._event_of(calls[call], call) for call in done]

    def dismiss(self, worker_id: int) -> None:
        """Kill the actor, whatever it does."""
        if worker_id in self._workers:
            self._drop(worker_id)

    def _newly_leaving(self) -> list[WorkerEvent]:
        now_s = time.monotonic()
        if now_s - self._last_look_s < NODES_INTERVAL_S:
            return []
        self._last_look_s = now_s
        # What asks a head that is gone never comes back.
        self._pulse.check()
        nodes = draining_nodes()
        found = [
            (worker_id, worker)
            for worker_id, worker in self._workers.items()
            if worker.node in nodes and not worker.is_leaving
        ]
        for _, worker in found:
            worker.is_leaving = True
        return [WorkerLeaving(worker_id) for worker_id, _ in found]

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
            # Of a head that is gone every worker is lost, and none can be put in its place.
            self._pulse.check()
            return self._lost(worker_id, f"the actor was lost: {error}", session_died=False)
        if "ready" in message:
            worker.node = message["ready"]["node"]
            return WorkerReady(worker_id, time.monotonic() - worker.started_s)
        if "answer" in message:
            answer = from_wire(message["answer"])
            if not isinstance(answer, LeaseDone | SealDone):
                raise ValueError(f"worker {worker_id} answered {message!r}")
            return TaskDone(worker_id, answer)
        if "loss" in message:
            loss = Loss.from_json(message["loss"])
            self._drop(worker_id)
            return WorkerLost(worker_id, loss.cause, True, loss.row, loss.timed_out, loss.done)
        failure = error_of(message["error"])
        if isinstance(failure, SessionBroken):
            return self._lost(worker_id, str(failure), session_died=True)
        return JobFailed(worker_id, failure)

    def _lost(self, worker_id: int, cause: str, *, session_died: bool) -> WorkerLost:
        self._drop(worker_id)
        return WorkerLost(worker_id, cause, session_died)

    def _drop(self, worker_id: int) -> None:
        ray.kill(self._workers.pop(worker_id).actor)


def draining_nodes() -> frozenset[str]:
    """Ids of nodes that Ray takes away soon: preempted, or scaled down.

    Ray 2.60 tells only by a private function; a Ray without it tells nothing, and a worker of such
    a node is lost like any other, which costs its lease and no attempt.
    """
    tell = getattr(ray._private.state.state, "get_draining_nodes", None)  # noqa: SLF001
    return frozenset(tell()) if tell is not None else frozenset()


def _wants(workers: WorkersSpec) -> dict[str, float]:
    """What one worker reserves, by Ray's names."""
    return {"CPU": workers.cpus, "GPU": workers.gpus, **workers.resources}


def _num_slots(cluster: dict[str, float], workers: WorkersSpec) -> int:
    """How many workers the cluster's resources hold at once; at least 1."""
    wants = _wants(workers)
    slots = [cluster.get(name, 0.0) // want for name, want in wants.items() if want > 0]
    return max(1, int(min(slots, default=1)))
