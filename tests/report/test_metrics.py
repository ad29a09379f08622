"""The numbers of a run as OpenMetrics text, read back by Prometheus' own parser."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from rdu_batch.report.metrics import COUNTERS, GAUGES, openmetrics_of
from rdu_batch.report.progress import Snapshot
from rdu_batch.report.summary import Summary


def summary(**changes):
    values = {
        "name": "nightly",
        "state": "complete",
        "exit": 5,
        "output": "s3://bucket/out",
        "rows": 10,
        "predictions": 7,
        "dead": 3,
        "shards": 2,
        "prompt_tokens": 100,
        "generated_tokens": 50,
        "finish_reasons": {"eos": 7},
        "dead_reasons": {"not_json": 2, 'a"b\\c\nd': 1},
        "rows_resumed": 0,
        "wall_s": 1.5,
        "tokens_per_s": 33.3,
        "workers": 2,
        "workers_lost": 0,
        "worker_seconds": {"total_s": 3.0, "prefill_s": 2.0, "waiting_s": 1.0},
        "job_digest": "sha256:0",
        **changes,
    }
    return Summary(**values)


def test_the_text_is_openmetrics_and_says_what_the_summary_says():
    """Labels are escaped; the sum of the parts is not among the parts."""
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(openmetrics_of(summary()))
        for sample in family.samples
    }
    job = ("job_name", "nightly")
    assert found["rdu_batch_rows", job] == 10
    assert found["rdu_batch_exit_code", job] == 5
    assert found["rdu_batch_dead_letters", job, ("reason", "not_json")] == 2
    assert found["rdu_batch_dead_letters", job, ("reason", 'a"b\\c\nd')] == 1
    assert found["rdu_batch_job_tokens", job, ("kind", "generated")] == 50
    kinds = {
        labels for name, *labels in found if name == "rdu_batch_worker_seconds" for labels in labels
    }
    assert {value for key, value in kinds if key == "kind"} == {"prefill", "waiting"}


def test_every_live_number_has_a_name_of_ours_and_a_value():
    """No two are called alike."""
    now = Snapshot(1.0, 10, 4, 1, 2, 30, 5, 3, 2, 1.0)
    names = [measure.name for measure in (*GAUGES, *COUNTERS)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("rdu_batch_") for name in names)
    told = {measure.name: measure.of(now) for measure in (*GAUGES, *COUNTERS)}
    assert told["rdu_batch_rows_done"] == 4
    assert told["rdu_batch_dead_rows"] == told["rdu_batch_run_dead_rows"] == 2
    assert told["rdu_batch_generated_tokens"] == 30
    assert told["rdu_batch_shards_committed"] == 3
