"""Where a run's live numbers go: Ray's metrics on a cluster, spans where a collector is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rdu_batch.report.metrics import MetricsSink, Sinks
from rdu_batch.runner.executor_choice import ExecutorKind
from rdu_batch.runner.lease_spans import LeaseSpans, open_lease_spans
from rdu_batch.runner.ray_metrics import RayMetrics

#: How long the end of a run waits for a collector of spans; after a stop not at all.
_PATIENCE_S: Final = 1.0


class RunSinks:
    """The sinks of a run. Their end is that of the ``with`` block, whatever way the run ended.

    The block is around all of a run, its result included: what takes a collector's time there takes
    none of the run's own.
    """

    def __init__(
        self,
        job_name: str,
        executor: ExecutorKind,
        say: Callable[[str], object],
        is_stopped: Callable[[], bool],
    ) -> None:
        """Open nothing yet.

        Args:
            job_name: as metrics and spans name the job.
            executor: with ``ray`` there are metrics of Ray.
            say: told, in lines for people, what the sinks lack.
            is_stopped: whether the run was asked to stop, so that its process has no time left.
        """
        self._job_name, self._executor, self._say = job_name, executor, say
        self._is_stopped = is_stopped
        self._spans: LeaseSpans | None = None

    def open(self) -> MetricsSink:
        """The sinks as one, in a process that is connected to Ray if Ray executes the run."""
        sinks: list[MetricsSink] = [RayMetrics(self._job_name)] if self._executor == "ray" else []
        self._spans = open_lease_spans(self._job_name, os.environ, self._say)
        return Sinks([*sinks, self._spans] if self._spans is not None else sinks)

    def __enter__(self) -> Self:
        """Nothing: see ``open``."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End the spans, as an error if the run ended with one."""
        if self._spans is not None:
            self._spans.close(error, 0.0 if self._is_stopped() else _PATIENCE_S)
