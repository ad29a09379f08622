"""How long jobs take in virtual time: nothing here depends on the machine."""

import pytest

from tests.benchmarks.scheduling import large_job, one_slow_worker
from tests.benchmarks.virtual_cluster import VirtualCluster


def test_one_worker_ten_times_slower_does_not_hold_the_job():
    """It gets short leases, and a late one is copied: 1.15 of ideal at most."""
    cluster = one_slow_worker()
    cluster.run()
    assert cluster.makespan_over_ideal < 1.15


def test_a_worker_that_gets_slow_in_the_middle_does_not_hold_the_job():
    """Its long lease is out when it turns a hundred times slower; an idle worker copies it."""
    cluster = VirtualCluster(num_rows=2_000, num_workers=4, rows_per_shard=500, start_s=1.0)
    cluster.speed_of = lambda worker_id: 0.01 if worker_id == 0 and cluster.now_s > 300 else 1.0
    cluster.run()
    assert cluster.scheduler.num_copies > 0
    assert cluster.now_s < 1.3 * 2_000 / 3.5


def test_preempted_nodes_cost_the_leases_that_they_had():
    """A tenth of the large job's workers, dying every quarter of an hour."""
    cluster = VirtualCluster(num_rows=50_000, num_workers=10, lifetime_s=900.0)
    cluster.run()
    assert cluster.scheduler.num_workers_lost > 20
    assert cluster.makespan_over_ideal < 1.05


@pytest.mark.all_only
@pytest.mark.slow
def test_a_large_job_is_five_percent_from_ideal():
    """100 workers and ten million rows, with preemptions and stragglers."""
    cluster = large_job(0.01)
    cluster.run()
    assert cluster.makespan_over_ideal < 1.05
