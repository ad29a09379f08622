"""Submitting a job to a Ray cluster, and waiting until it came to something.

Promises: a second submit of the same job and date finds the first and begins nothing, or goes on
after it; no two of its submissions have the same id; a connection that drops is tried again, a
cluster that is gone is judged by the output's store. Does not: stream. A log is fetched whole and
what is new of it is told, so that nothing depends on a connection that holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from rdu_batch.errors import ClusterError, OutputMismatch, WaitEnded
from rdu_batch.runner.epochs import owners_from_last, read_result
from rdu_batch.runner.manifest import read_manifest, read_success
from rdu_batch.runner.ray_jobs import ClusterBusy, SubmissionExists
from rdu_batch.runner.shipping import Shipment, job_file_digest, job_file_text
from rdu_batch.runner.submission import (
    ALREADY_COMPLETE,
    Ending,
    RayState,
    StoreState,
    ending_of,
    last_attempt,
    message_in,
    submission_id,
)
from rdu_batch.storage.store import Store, open_store

POLL_S: Final = 1.0
#: How often the store is asked while Ray says that the submission runs: Ray may be wrong for ever.
STORE_POLL_S: Final = 30.0
#: How long a cluster may be silent before the store alone decides.
PATIENCE_S: Final = 120.0

# Keys of a submission's metadata, which Ray keeps and shows.
OUTPUT: Final = "rdu_batch.output"
JOB_FILE_DIGEST: Final = "rdu_batch.job_file_digest"
COPIES: Final = "rdu_batch.copies_of_inputs"


class Jobs(Protocol):
    """What is asked of a cluster; see ``ray_jobs.RayJobs``."""

    def state(self, submission_id: str) -> RayState | None:
        """See ``RayJobs.state``."""

    def ids(self) -> list[str]:
        """See ``RayJobs.ids``."""

    def submit(
        self, submission_id: str, job_file: str, metadata: dict[str, str], python: str
    ) -> None:
        """See ``RayJobs.submit``."""

    def log(self, submission_id: str) -> str | None:
        """See ``RayJobs.log``."""


@dataclass(frozen=True)
class Submitted:
    """A submission of a job: a new one, or the one that was there."""

    id: str
    is_new: bool
    #: It had completed the job before it was asked for.
    had_ended: bool = False


def submit_job(
    jobs: Jobs,
    shipment: Shipment,
    key: str,
    *,
    python: str,
    patience_s: float = PATIENCE_S,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Submitted:
    """Submit a job, unless a submission of its key is under way or has completed it.

    Args:
        jobs: the cluster.
        shipment: the job, whose local inputs are copied only where it is submitted.
        key: of ``submission.submission_key``.
        python: the interpreter on the cluster.
        patience_s: how long a cluster may be too busy to take it, as one is that has just begun.
        now_s: monotonic seconds.
        sleep: waits.

    Raises:
        OutputMismatch: a submission of this key is under way with another job file.
        ClusterError: the cluster does not answer, or refuses.
        StoreError: the store failed.
    """
    spec = shipment.spec
    store = open_store(spec.output.url)
    metadata = {
        OUTPUT: store.url,
        JOB_FILE_DIGEST: job_file_digest(shipment.written),
        COPIES: shipment.copies,
    }
    deadline_s = now_s() + patience_s
    while True:
        known = last_attempt(key, jobs.ids())
        if known:
            last = submission_id(key, known)
            ray = jobs.state(last)
            if _stands(ray, store, last, metadata):
                had_ended = ray is not None and ray.status.is_ended
                return Submitted(last, is_new=False, had_ended=had_ended)
        # Of a cluster that is gone only the store remembers: an old result must not be taken for
        # that of a new submission.
        seen = (owner.submission_id for owner in owners_from_last(store) if owner.submission_id)
        attempt = 1 + max(known, last_attempt(key, seen))
        new_id = submission_id(key, attempt)
        shipment.copy()
        try:
            jobs.submit(new_id, job_file_text(spec), metadata, python)
        except SubmissionExists:
            continue  # another submitter was first: look at what it submitted
        except ClusterBusy:
            if now_s() >= deadline_s:
                raise
            sleep(POLL_S)
            continue
        except ClusterError:
            # Of two requests at the same moment Ray fails the second without a word of why.
            if jobs.state(new_id) is None:
                raise
            continue
        return Submitted(new_id, is_new=True)


def _stands(ray: RayState | None, store: Store, last: str, metadata: Mapping[str, str]) -> bool:
    """Whether the last submission of a key makes a new one needless."""
    if ray is None:
        return False
    ending = ending_of(ray, store_state(store, last))
    # Nothing is copied for an output that is finished: its inputs may be anything by then.
    keys = [OUTPUT, JOB_FILE_DIGEST, *([COPIES] if metadata[COPIES] else [])]
    is_same = all(ray.metadata.get(key) == metadata[key] for key in keys)
    if ending is None:
        if is_same:
            return True
        raise OutputMismatch(
            f"submission {last} is under way with another job file: wait for it (`rdu-batch wait "
            f"{last}`) or stop it (`rdu-batch stop {last}`), and submit again; or give one of the "
            "two another name (--set name=...)"
        )
    return is_same and ending.exit in (0, 5) and read_success(store) is not None


def store_state(store: Store, wanted_id: str) -> StoreState:
    """What an output's store says of a submission.

    Raises:
        StoreError: the store failed.
    """
    for owner in owners_from_last(store):
        if owner.submission_id == wanted_id:
            result = read_result(store, owner.epoch)
            return StoreState(owner.epoch, result, read_success(store) is not None)
    return StoreState(None, None, read_success(store) is not None)


def wait_for(
    jobs: Jobs,
    wanted_id: str,
    output_url: str | None,
    *,
    timeout_s: float | None,
    tell: Callable[[str], None],
    tell_log: Callable[[str], None],
    patience_s: float = PATIENCE_S,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Ending:
    """Wait until a submission came to something.

    Args:
        jobs: the cluster.
        wanted_id: of the submission.
        output_url: of the job; None where Ray's metadata tells it.
        timeout_s: the longest wait; None for ever.
        tell: told what is odd.
        tell_log: told each new piece of the driver's log.
        patience_s: how long the cluster may be silent.
        now_s: monotonic seconds.
        sleep: waits.

    Raises:
        WaitEnded: the time is over.
        ClusterError: the cluster is silent for too long, or does not know the submission, and the
            store knows no result of it.
        StoreError: the store failed.
    """
    waiting = _Waiting(jobs, wanted_id, output_url, tell, tell_log, now_s)
    deadline_s = None if timeout_s is None else now_s() + timeout_s
    while True:
        ending = waiting.look(patience_s)
        if ending is not None:
            return ending
        if deadline_s is not None and now_s() >= deadline_s:
            raise WaitEnded(
                f"{wanted_id} still runs after {timeout_s:g} s of waiting; it goes on. Wait again "
                f"with `rdu-batch wait {wanted_id}`, or stop it with `rdu-batch stop {wanted_id}`"
            )
        left_s = POLL_S if deadline_s is None else min(POLL_S, deadline_s - now_s())
        sleep(max(0.0, left_s))


class _Waiting:
    """What is known between two looks."""

    def __init__(
        self,
        jobs: Jobs,
        wanted_id: str,
        output_url: str | None,
        tell: Callable[[str], None],
        tell_log: Callable[[str], None],
        now_s: Callable[[], float],
    ) -> None:
        self._jobs, self._id, self._output_url = jobs, wanted_id, output_url
        self._tell, self._tell_log, self._now_s = tell, tell_log, now_s
        self._log, self._num_told = "", 0
        self._silent_since_s: float | None = None
        self._store_asked_s = now_s()

    def look(self, patience_s: float) -> Ending | None:
        """What the submission came to; None while it is under way."""
        now_s = self._now_s()
        try:
            ray = self._jobs.state(self._id)
            if ray is not None:
                self._output_url = self._output_url or ray.metadata.get(OUTPUT)
                self._pass_on_log()
        except ClusterError as error:
            return self._without_cluster(now_s, patience_s, error)
        if self._silent_since_s is not None:
            self._tell("Ray answers again")
        self._silent_since_s = None
        if ray is None:
            unknown = ClusterError(
                f"Ray knows no submission {self._id}, and the output "
                f"{self._output_url or '(name it with --output)'} holds no result of it. Was the "
                "cluster replaced? Submit the job again: it goes on from what is durable"
            )
            return self._told_by_store_or(unknown)
        if not ray.status.is_ended and now_s - self._store_asked_s < STORE_POLL_S:
            return None
        self._store_asked_s = now_s
        return self._explained(ending_of(ray, self._store_state()))

    def _without_cluster(
        self, now_s: float, patience_s: float, error: ClusterError
    ) -> Ending | None:
        if self._silent_since_s is None:
            self._silent_since_s = now_s
            self._tell(f"{error}; trying for {patience_s:g} s")
        return self._told_by_store_or(error if now_s - self._silent_since_s >= patience_s else None)

    def _told_by_store_or(self, error: ClusterError | None) -> Ending | None:
        ending = ending_of(None, self._store_state())
        if ending is None and error is not None:
            raise error
        return ending

    def _store_state(self) -> StoreState:
        if self._output_url is None:
            return StoreState(None, None, is_complete=False)
        return store_state(open_store(self._output_url), self._id)

    def _pass_on_log(self) -> None:
        self._log = self._jobs.log(self._id) or ""
        end = self._log.rfind("\n") + 1
        if end > self._num_told:
            self._tell_log(self._log[self._num_told : end])
            self._num_told = end

    def _explained(self, ending: Ending | None) -> Ending | None:
        if ending is None or ending.result is not None or not ending.exit:
            return ending
        message = message_in(self._log, ending.exit)
        return replace(ending, message=message) if message else ending


def told(wanted_id: str, output_url: str | None, ending: Ending) -> dict[str, Any]:
    """The JSON object of a submission that came to its end, with its result if it reported one."""
    found = dict(ending.result or {})
    for inner in ("version", "worker_seconds", "by_worker", "throughput"):
        found.pop(inner, None)
    if not found and ending.state == ALREADY_COMPLETE and output_url is not None:
        manifest, _ = read_manifest(open_store(output_url))
        found = {**manifest["totals"], "shards": len(manifest["parts"])}
    if output_url is not None:
        found.setdefault("output", output_url)
    if ending.message:
        found = {"error": "SubmissionEnded", **found, "message": ending.message}
    return {**found, "submission_id": wanted_id, "state": ending.state, "exit": ending.exit}
