"""A run's numbers as metrics of Ray, which each node of a cluster exports for Prometheus.

Ray prefixes every name with ``ray_``. Does not: keep numbers; what nobody scrapes in time is lost.
"""

from __future__ import annotations

from typing import Any

from rdu_batch.report.metrics import (
    COUNTERS,
    GAUGES,
    LEASE_SECONDS,
    LEASE_SECONDS_BOUNDS,
    LEASE_SECONDS_HELP,
    EndedLease,
)
from rdu_batch.report.progress import Snapshot


class RayMetrics:
    """A ``MetricsSink`` in a process that is connected to Ray."""

    def __init__(self, job_name: str) -> None:
        """Make the metrics, with the job's name as their label ``job_name``."""
        from ray.util.metrics import Counter, Gauge, Histogram

        def made(kind: Any, name: str, text: str, **options: Any) -> Any:
            metric = kind(name, description=text, tag_keys=("job_name",), **options)
            metric.set_default_tags({"job_name": job_name})
            return metric

        self._gauges = [(one, made(Gauge, one.name, one.help)) for one in GAUGES]
        self._counters = [(one, made(Counter, one.name, one.help)) for one in COUNTERS]
        self._leases = made(
            Histogram, LEASE_SECONDS, LEASE_SECONDS_HELP, boundaries=list(LEASE_SECONDS_BOUNDS)
        )
        self._told: dict[str, float] = {}

    def show(self, snapshot: Snapshot) -> None:
        """Tell Ray where the job stands, changed or not: it forgets a gauge within seconds."""
        for measure, gauge in self._gauges:
            gauge.set(measure.of(snapshot))
        for measure, counter in self._counters:
            more = measure.of(snapshot) - self._told.get(measure.name, 0.0)
            if more > 0:
                counter.inc(more)
                self._told[measure.name] = measure.of(snapshot)

    def lease_ended(self, lease: EndedLease) -> None:
        """Tell Ray how long it took."""
        self._leases.observe(lease.seconds)
