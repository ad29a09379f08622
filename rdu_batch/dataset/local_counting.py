"""Counting with all processors of this machine, where the inputs are large: threads and processes.

Small inputs are counted here: starting processes costs more than it saves. Memory: of each process
two reads of 8 MiB and two windows, of each thread one of 1 MiB; results wait until their turn, a
few tasks each.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Self

from rdu_batch.dataset.counting import CountTask, PartCount, count_here, count_task
from rdu_batch.dataset.formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rdu_batch.dataset.counting import CountRanges, FilePart

_TASKS_PER_PROCESS: Final = 2
#: Opening file after file is mostly waiting for a disk or a store: more processes than processors,
#: as long as they are few.
_PROCESSES_PER_PROCESSOR: Final = 4
_MANY_PROCESSES: Final = 32
#: Tasks that are looked at to see whether processes pay.
_FEW_TASKS: Final = 4


def local_counting(
    prepare: Callable[..., object] | None = None, *arguments: object, num_processes: int = 0
) -> CountRanges:
    """A way of counting with several processors.

    Args:
        prepare: called in each new process before it counts, with the arguments; must be picklable.
        arguments: of ``prepare``.
        num_processes: how many, and as many threads; 0 for what suits the processors that this
            process may use.
    """
    num_threads = num_processes or len(os.sched_getaffinity(0))
    wanted = num_processes or num_processes_of(num_threads)

    def count(tasks: Iterable[CountTask]) -> Iterator[tuple[PartCount, ...]]:
        tasks = iter(tasks)
        first = [task for _, task in zip(range(_FEW_TASKS), tasks, strict=False)]
        if num_threads == 1 or len(first) < _FEW_TASKS:
            yield from count_here(first)
            yield from count_here(tasks)
            return
        with _Pools(num_threads, wanted, prepare, arguments) as pools:
            waiting: deque[Future[tuple[PartCount, ...]]] = deque()
            for task in itertools.chain(first, tasks):
                if len(waiting) >= wanted * _TASKS_PER_PROCESS:
                    yield waiting.popleft().result()
                waiting.append(pools.submit(task))
            while waiting:
                yield waiting.popleft().result()

    return count


def num_processes_of(num_processors: int) -> int:
    """How many processes open small files where there are so many processors."""
    return max(num_processors, min(_PROCESSES_PER_PROCESSOR * num_processors, _MANY_PROCESSES))


def _is_plain(part: FilePart) -> bool:
    """Whether a part is text in a local file."""
    return "://" not in part.folder and FORMATS[part.format].is_stored_as_read


class _Pools:
    """Threads for large parts of local text, processes, once one is wanted, for all other tasks.

    Counting such a part is a few long calls that let other threads run; what decodes, and what
    opens file after file, is Python's own work.
    """

    def __init__(
        self,
        num_threads: int,
        num_processes: int,
        prepare: Callable[..., object] | None,
        arguments: tuple[object, ...],
    ) -> None:
        self._num_processes = num_processes
        self._prepare = prepare
        self._arguments = arguments
        self._threads = ThreadPoolExecutor(num_threads, "count")
        self._processes: ProcessPoolExecutor | None = None

    def submit(self, task: CountTask) -> Future[tuple[PartCount, ...]]:
        """Do a task."""
        if len(task.parts) == 1 and _is_plain(task.parts[0]):
            return self._threads.submit(count_task, task)
        if self._processes is None:
            # Not fork: it would leave our threads, and those of drivers, in the middle of work.
            self._processes = ProcessPoolExecutor(
                self._num_processes,
                multiprocessing.get_context("spawn"),
                initializer=self._prepare,
                initargs=self._arguments,  # type: ignore[arg-type]
            )
        return self._processes.submit(count_task, task)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._threads, self._processes):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)
