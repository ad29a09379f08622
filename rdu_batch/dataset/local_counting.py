"""Counting in processes of this machine: as many as it has processors, where the inputs are large.

Small inputs are counted here: starting processes costs more than it saves. Memory: of each process
two reads of 8 MiB and two windows; results wait until their turn, a few tasks a process.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final

from rdu_batch.dataset.counting import CountTask, PartCount, count_here, count_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rdu_batch.dataset.counting import CountRanges

_TASKS_PER_PROCESS: Final = 3
#: Tasks that are looked at to see whether processes pay.
_FEW_TASKS: Final = 4


def local_counting(
    prepare: Callable[..., object] | None = None, *arguments: object, num_processes: int = 0
) -> CountRanges:
    """A way of counting in local processes.

    Args:
        prepare: called in each process before it counts, with the arguments; must be picklable.
        arguments: of ``prepare``.
        num_processes: how many; 0 for one a processor that this process may use.
    """
    wanted = num_processes or len(os.sched_getaffinity(0))

    def count(tasks: Iterable[CountTask]) -> Iterator[tuple[PartCount, ...]]:
        tasks = iter(tasks)
        first = [task for _, task in zip(range(_FEW_TASKS), tasks, strict=False)]
        if wanted == 1 or len(first) < _FEW_TASKS:
            yield from count_here(first)
            yield from count_here(tasks)
            return
        yield from _in_processes((*first,), tasks, wanted, prepare, arguments)

    return count


def _in_processes(
    first: tuple[CountTask, ...],
    rest: Iterator[CountTask],
    num_processes: int,
    prepare: Callable[..., object] | None,
    arguments: tuple[object, ...],
) -> Iterator[tuple[PartCount, ...]]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # Not fork: drivers of stores have threads, which a fork leaves behind in the middle of work.
    pool = ProcessPoolExecutor(
        num_processes,
        multiprocessing.get_context("spawn"),
        initializer=prepare,
        initargs=arguments,  # type: ignore[arg-type]
    )
    try:
        waiting = deque(pool.submit(count_task, task) for task in first)
        for task in rest:
            if len(waiting) >= num_processes * _TASKS_PER_PROCESS:
                yield waiting.popleft().result()
            waiting.append(pool.submit(count_task, task))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
