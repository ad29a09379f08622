"""Counting a plan's inputs as Ray tasks, where they are large.

Small inputs are counted on this machine: reaching a cluster costs more than it saves.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from typing import Any, Final

from rdu_batch.dataset.counting import CountRanges, CountTask, PartCount, count_task
from rdu_batch.job.spec import JobSpec
from rdu_batch.report.progress import Progress
from rdu_batch.runner.executor_choice import connected_to_ray
from rdu_batch.runner.stops import StopRequest
from rdu_batch.storage.options_in_force import use_storage_options

#: Fewer tasks, of about 32 MiB each, are counted on this machine.
MIN_TASKS: Final = 32
_TASKS_PER_CPU: Final = 2


def ray_counting(
    spec: JobSpec,
    address: str | None,
    stop: StopRequest,
    progress: Progress,
    otherwise: CountRanges,
    *,
    min_tasks: int = MIN_TASKS,
) -> CountRanges:
    """A way of counting on a Ray cluster, which is reached only where there is enough to count.

    Args:
        spec: the job.
        address: of the cluster.
        stop: raises while it is being reached.
        progress: told that it is being reached.
        otherwise: counts what is too small.
        min_tasks: how much is enough.
    """

    def count(tasks: Iterable[CountTask]) -> Iterator[tuple[PartCount, ...]]:
        tasks = iter(tasks)
        first = list(itertools.islice(tasks, min_tasks))
        all_tasks = itertools.chain(first, tasks)
        if len(first) < min_tasks:
            yield from otherwise(all_tasks)
            return
        with (
            redirect_stdout(sys.stderr),
            connected_to_ray(address, spec.workers, stop, progress),
        ):
            yield from count_on_ray(spec, all_tasks)

    return count


def count_on_ray(spec: JobSpec, tasks: Iterable[CountTask]) -> Iterator[tuple[PartCount, ...]]:
    """Do tasks on the cluster that this process is connected to; results in their order."""
    import ray

    counting: Any = ray.remote(_count).options(num_cpus=1, max_retries=3)
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_waiting = max(1, int(cluster.get("CPU", 1))) * _TASKS_PER_CPU
    spec_json = spec.model_dump_json()
    waiting: deque[Any] = deque()
    for task in tasks:
        if len(waiting) >= num_waiting:
            yield ray.get(waiting.popleft())
        waiting.append(counting.remote(spec_json, task))
    while waiting:
        yield ray.get(waiting.popleft())


def _count(spec_json: str, task: CountTask) -> tuple[PartCount, ...]:
    use_storage_options(JobSpec.model_validate_json(spec_json))
    return count_task(task)
