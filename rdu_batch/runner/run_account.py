"""What a run's own result keeps of its way: who did what, and how much was done when.

The summary has the sums; this is for the report page and for people who look closer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rdu_batch.errors import RduBatchError
from rdu_batch.runner.throughput import Throughput
from rdu_batch.runner.worker_seconds import WorkerAccount, WorkerSeconds

#: Workers that a result tells of one by one: those that lived longest.
MAX_WORKERS_TOLD = 100


@dataclass(frozen=True)
class RunAccount:
    """One epoch's, closed. Nothing where no worker was wanted."""

    seconds: WorkerSeconds = field(default_factory=WorkerSeconds)
    workers: tuple[WorkerAccount, ...] = ()
    throughput: Throughput = field(default_factory=Throughput)

    def to_json(self) -> dict[str, Any]:
        """What a result has beside the summary; its size is bounded."""
        told = [(one.worker_id, one.to_json()) for one in self.workers]
        told.sort(key=lambda pair: -pair[1]["seconds"]["total_s"])
        longest = sorted(told[:MAX_WORKERS_TOLD], key=lambda pair: pair[0])
        return {
            "by_worker": [account for _, account in longest],
            "throughput": self.throughput.to_json(),
        }


def result_of_failure(error: RduBatchError, account: RunAccount, wall_s: float) -> dict[str, Any]:
    """What an epoch that ended with an error reports, beside its account's own ``to_json``."""
    num_tokens = sum(account.throughput.generated_tokens)
    return {
        "exit": error.exit_code,
        "error": type(error).__name__,
        "message": str(error),
        "wall_s": round(wall_s, 3),
        "tokens_per_s": round(num_tokens / wall_s, 2) if wall_s > 0 else 0.0,
        # Every one that there was: which of them were lost is in no account.
        "workers": len(account.workers),
        "worker_seconds": account.seconds.to_json(),
    }
