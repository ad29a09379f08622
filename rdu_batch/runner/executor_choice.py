"""Opens the executor that a run asks for, and closes it however the run ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Literal, get_args

from rdu_batch.errors import UsageError
from rdu_batch.job.spec import WorkersSpec
from rdu_batch.report.progress import Progress
from rdu_batch.runner.executor import Executor
from rdu_batch.runner.inline_executor import InlineExecutor
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.stops import StopRequest

ExecutorKind = Literal["ray", "inline"]


#: Ray's own resources, of which a worker that asks for them as custom ones is refused.
_NOT_CUSTOM = ("CPU", "GPU", "memory", "object_store_memory")


def check_kind(kind: str) -> None:
    """Refuse an executor that there is not, before anything is planned.

    Raises:
        UsageError: there is none of this name.
    """
    if kind not in get_args(ExecutorKind):
        raise UsageError(f"executor is {kind!r}, wanted {' or '.join(get_args(ExecutorKind))}")


@contextmanager
def open_executor(
    kind: ExecutorKind,
    context: JobContext,
    *,
    address: str | None,
    stop: StopRequest,
    progress: Progress,
    is_fenced: Callable[[], bool],
) -> Iterator[Executor]:
    """Open an executor; its workers are gone when the block ends.

    Args:
        kind: which.
        context: for the workers.
        address: of the Ray cluster; see ``ray_connection.RayConnection``.
        stop: raises while Ray is being reached, ends an inline lease early.
        progress: told that Ray is being reached.
        is_fenced: ends an inline lease early, too. The worker stores nothing of it.

    Raises:
        UsageError: there is no such kind.
        ClusterError: Ray cannot be reached. Ends the job.
    """
    check_kind(kind)
    if kind == "inline":
        inline = InlineExecutor(context, should_stop=lambda: stop.is_requested() or is_fenced())
        try:
            yield inline
        finally:
            inline.stop()
        return
    from rdu_batch.runner import ray_executor
    from rdu_batch.runner.ray_address import Pulse

    # Standard output is for programs: what Ray prints, of dead actors say, is for people.
    wanted = context.spec.workers
    with redirect_stdout(sys.stderr), connected_to_ray(address, wanted, stop, progress) as head:
        pulse = Pulse(head, is_stopping=stop.is_requested)
        workers = ray_executor.RayExecutor(context, pulse)
        if missing := workers.missing_resources():
            progress.phase(
                f"the cluster cannot give what one worker asks for: {', '.join(missing)}; waiting "
                "for a node that can (`ray start --resources=...`); the workers block of the job "
                "file, or --set workers.resources={}, asks for less"
            )
        try:
            yield workers
        finally:
            workers.stop()


@contextmanager
def connected_to_ray(
    address: str | None, wanted: WorkersSpec, stop: StopRequest, progress: Progress
) -> Iterator[str | None]:
    """Inside, this process is connected to Ray; gives the address of its head, if it has one.

    Raises:
        ClusterError: Ray cannot be reached. Ends the job.
    """
    from rdu_batch.runner.ray_connection import RayConnection

    # A Ray for this run alone stands for a machine that has what the workers ask for.
    count = wanted.count if isinstance(wanted.count, int) else wanted.min
    resources = {
        name: amount * count for name, amount in wanted.resources.items() if name not in _NOT_CUSTOM
    }
    connection = RayConnection(address, resources, say=progress.phase)
    try:
        with stop.raising():
            progress.phase("connecting to Ray")
            connection.open()
            # Ray's core handles SIGTERM, too, by telling of it at length.
            stop.listen()
        yield connection.head
    finally:
        connection.close()


def num_workers_on(executor: Executor, wanted: WorkersSpec) -> int:
    """How many workers to start on an executor."""
    if isinstance(executor, InlineExecutor):
        return 1
    if isinstance(wanted.count, int):
        return wanted.count
    return max(wanted.min, min(executor.num_slots, wanted.max or executor.num_slots))
