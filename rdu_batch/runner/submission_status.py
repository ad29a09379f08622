"""Where a submission stands, by Ray and by its output's store; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import ClusterError
from rdu_batch.runner.submission import Ending, RayState, ending_of, message_in
from rdu_batch.runner.submitting import store_state

if TYPE_CHECKING:
    from rdu_batch.runner.submitting import Jobs
    from rdu_batch.storage.store import Store


@dataclass(frozen=True)
class SubmissionStatus:
    """What one look at a submission tells."""

    id: str
    #: None where Ray does not answer any more.
    ray: RayState | None
    #: The epoch that its driver took; None while it has taken none.
    epoch: int | None
    #: What it came to; None while it is under way.
    ending: Ending | None

    @property
    def is_running(self) -> bool:
        """Whether Ray says that its driver runs."""
        return self.ray is not None and str(self.ray.status) == "RUNNING"

    @property
    def ray_status(self) -> str | None:
        """Ray's own word; None where it does not answer."""
        return None if self.ray is None else str(self.ray.status)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``ending`` is null while the submission is under way."""
        ending = self.ending
        told = ending and {"state": ending.state, "exit": ending.exit, "message": ending.message}
        return {"submission_id": self.id, "ray_status": self.ray_status, "ending": told}


def look_at_submission(
    jobs: Jobs, submission_id: str, ray: RayState | None, store: Store
) -> SubmissionStatus:
    """Look at a submission.

    Args:
        jobs: the cluster.
        submission_id: which.
        ray: what Ray says of it; None if it does not answer.
        store: its output.

    Raises:
        StoreError: the store failed.
    """
    state = store_state(store, submission_id)
    ending = ending_of(ray, state)
    if ending is not None and ending.exit and ending.result is None:
        ending = _explained(jobs, submission_id, ending)
    return SubmissionStatus(submission_id, ray, state.epoch, ending)


def _explained(jobs: Jobs, submission_id: str, ending: Ending) -> Ending:
    """A driver that took no epoch says only in its log why it ended."""
    try:
        message = message_in(jobs.log(submission_id) or "", ending.exit)
    except ClusterError:
        return ending
    return replace(ending, message=message) if message else ending
