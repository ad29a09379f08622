"""Where a run's live numbers go: Ray's metrics on a cluster, spans where a collector is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rdu_batch.job.spec import JobSpec
from rdu_batch.report.metrics import MetricsSink, Sinks
from rdu_batch.runner.executor_choice import ExecutorKind
from rdu_batch.runner.lease_spans import open_lease_spans
from rdu_batch.runner.ray_metrics import RayMetrics


@contextmanager
def told_sinks(
    spec: JobSpec, executor: ExecutorKind, say: Callable[[str], object]
) -> Iterator[MetricsSink]:
    """The sinks of a run, closed when it ends in whatever way; ``say`` is told what they lack."""
    sinks: list[MetricsSink] = [RayMetrics(spec.name)] if executor == "ray" else []
    spans = open_lease_spans(spec.name, os.environ, say)
    if spans is not None:
        sinks.append(spans)
    error: BaseException | None = None
    try:
        yield Sinks(sinks)
    except BaseException as raised:
        error = raised
        raise
    finally:
        if spans is not None:
            spans.close(error)
