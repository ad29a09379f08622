"""What Ray is told of a run's numbers, and when."""

from collections import Counter

import pytest

from rdu_batch.report.metrics import GAUGES
from rdu_batch.report.progress import Snapshot
from rdu_batch.runner.ray_metrics import RayMetrics

pytestmark = pytest.mark.ray


def test_gauges_are_told_at_every_look_and_counters_only_what_is_new(monkeypatch):
    """Ray's exporter forgets a gauge that was not set within its last intervals."""
    told: Counter[str] = Counter()
    looks: Counter[str] = Counter()

    def note(metric, value):
        told[metric.info["name"]] += value
        looks[metric.info["name"]] += 1

    monkeypatch.setattr("ray.util.metrics.Gauge.set", note)
    monkeypatch.setattr("ray.util.metrics.Counter.inc", note)
    metrics = RayMetrics("nightly")
    for tokens in (0, 30, 30):
        metrics.show(Snapshot(1.0, 10, 4, 1, 2, tokens, 5, 3, 2, 1.0))
    assert {looks[gauge.name] for gauge in GAUGES} == {3}
    assert (told["rdu_batch_generated_tokens"], looks["rdu_batch_generated_tokens"]) == (30, 1)
