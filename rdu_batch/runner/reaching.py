"""Reaching a cluster that may not be there yet, such as one whose head is being replaced.

Promises: what will not change by waiting, such as a wrong token, is said at once. Does not: hold a
connection; each question to a cluster is one of its own (``ray_jobs.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rdu_batch.errors import ClusterError
from rdu_batch.runner.ray_jobs import ClusterRefuses, RayJobs
from rdu_batch.runner.submitting import POLL_S


def reach(
    open_jobs: Callable[[], RayJobs],
    patience_s: float,
    *,
    tell: Callable[[str], None],
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RayJobs:
    """The jobs of a cluster that may not be there yet.

    Args:
        open_jobs: reaches the cluster.
        patience_s: how long to try again.
        tell: told, once, why it is tried again.
        now_s: monotonic seconds.
        sleep: waits.

    Raises:
        ClusterError: it does not answer in that time; at once if it refuses.
    """
    deadline_s, is_told = now_s() + patience_s, False
    while True:
        try:
            return open_jobs()
        except ClusterRefuses:
            raise
        except ClusterError as error:
            if now_s() >= deadline_s:
                raise
            if not is_told:
                tell(f"{error}; trying for {patience_s:g} s")
            is_told = True
        sleep(POLL_S)
