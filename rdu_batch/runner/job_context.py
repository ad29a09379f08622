"""What a worker must be told to take part in a job; JSON, a few kilobytes, no row data.

The plan and its index are not in it: a worker reads them from the store and checks the digest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from rdu_batch.dataset.planning import load_plan
from rdu_batch.errors import OutputMismatch
from rdu_batch.job.plan import Plan
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import Store, open_store


def with_absolute_urls(spec: JobSpec) -> JobSpec:
    """The spec with local output and artifact as absolute paths.

    A path in a job file is taken from the folder of the command; a worker runs in another.
    """
    output = spec.output.model_copy(update={"url": open_store(spec.output.url).url})
    session = spec.session
    if session.artifact is not None:
        session = session.model_copy(update={"artifact": open_store(session.artifact).url})
    return spec.model_copy(update={"output": output, "session": session})


@dataclass(frozen=True)
class JobContext:
    """One epoch of one job, as seen by its workers."""

    spec: JobSpec
    plan_digest: str
    epoch: int
    #: Of the driver that took the epoch; empty where none did (see ``fencing.check_epoch``).
    token: str = ""

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(
            {
                "spec": self.spec.model_dump(mode="json"),
                "plan_digest": self.plan_digest,
                "epoch": self.epoch,
                "token": self.token,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> JobContext:
        """Read back what ``to_json`` wrote."""
        document = json.loads(text)
        spec = JobSpec.model_validate_json(json.dumps(document["spec"]))
        return cls(spec, document["plan_digest"], document["epoch"], document["token"])

    def load_plan(self, store: Store) -> Plan:
        """The job's plan from the output store.

        Raises:
            OutputMismatch: the store holds another plan than the driver's. Ends the job.
        """
        plan = load_plan(store)
        if plan is None or plan.digest != self.plan_digest:
            found = "no plan" if plan is None else f"plan {plan.digest}"
            raise OutputMismatch(
                f"{store.url}: this worker finds {found}, its driver runs {self.plan_digest}. "
                "Every worker must see the same output store; a local path only works when all "
                "workers are on one machine or share the folder."
            )
        return plan
