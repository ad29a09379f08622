"""Makespan and driver load of large jobs, in virtual time.

    python -m tests.benchmarks.scheduling [--scale 0.01]

At scale 1: 10,000 workers and 10^9 rows of a second, nodes preempted every four hours on average,
one worker in a hundred three times slower. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import time

from tests.benchmarks.virtual_cluster import VirtualCluster

#: Requests to the store: a lease puts one segment; a seal lists, puts a part, creates a commit
#: record, publishes, and reads and deletes each segment; the driver's heartbeat is one in 5 s.
SEAL_REQUESTS = 4
REQUESTS_PER_LEASE = 3


def large_job(scale: float) -> VirtualCluster:
    """Of 10,000 workers and 10^9 rows at scale 1."""
    return VirtualCluster(
        num_rows=int(1e9 * scale),
        num_workers=int(10_000 * scale),
        speed_of=lambda worker_id: 1 / 3 if worker_id % 100 == 7 else 1.0,
        lifetime_s=4 * 3600.0,
    )


def one_slow_worker() -> VirtualCluster:
    """Four workers, one of them ten times slower, 4,000 rows of a second."""
    return VirtualCluster(
        num_rows=4_000,
        num_workers=4,
        rows_per_shard=500,
        speed_of=lambda worker_id: 0.1 if worker_id == 0 else 1.0,
        start_s=5.0,
    )


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.01)
    scale = parser.parse_args().scale
    found = {}
    for name, cluster in (("large", large_job(scale)), ("one_slow_worker", one_slow_worker())):
        started_s = time.perf_counter()
        cluster.run()
        num_requests = cluster.num_leases * REQUESTS_PER_LEASE + cluster.num_seals * SEAL_REQUESTS
        found[name] = {
            "workers": cluster.num_workers,
            "rows": cluster.num_rows,
            "makespan_s": round(cluster.now_s, 1),
            "makespan_over_ideal": round(cluster.makespan_over_ideal, 4),
            "leases": cluster.num_leases,
            "copies": cluster.scheduler.num_copies,
            "workers_lost": cluster.scheduler.num_workers_lost,
            "scheduler_busy_s": round(cluster.busy_s, 2),
            "scheduler_busy_fraction": round(cluster.busy_s / cluster.now_s, 5),
            "event_us": round(cluster.busy_s / cluster.num_events * 1e6, 1),
            "store_requests_per_s": round(num_requests / cluster.now_s, 1),
            "simulated_in_s": round(time.perf_counter() - started_s, 1),
        }
        for key, value in found[name].items():
            print(f"{name:>16}  {key:24} {value:,}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
