"""What a job is: everything that decides its bytes, and the digest of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rdu_batch.errors import SpecError
from rdu_batch.job.plan import digest_of, job_decides
from rdu_batch.job.spec import JobSpec
from rdu_batch.sessions.artifact_store import read_artifact
from rdu_batch.sessions.registry import FAKE_ARTIFACT_DIGEST, problem_of_kind


@dataclass(frozen=True)
class JobIdentity:
    """Two specs with equal ``job_digest`` are the same job and may share an output."""

    decides: dict[str, Any]
    job_digest: str
    artifact_digest: str
    #: Digest of the checkpoint that the artifact was compiled from.
    model_digest: str
    #: Digest of the spec's prompt block.
    prompt_digest: str


def identify_job(spec: JobSpec) -> JobIdentity:
    """Read the artifact's description and say what job this spec is.

    Raises:
        SpecError: there is no such kind of session. Ends the job.
        ArtifactError: there is no artifact at ``session.artifact``. Ends the job.
    """
    problem = problem_of_kind(spec.session.kind)
    if problem is not None:
        raise SpecError([f"session.kind: {problem}"])
    if spec.session.artifact is None:
        artifact_digest = model_digest = FAKE_ARTIFACT_DIGEST
    else:
        artifact = read_artifact(spec.session.artifact)
        artifact_digest, model_digest = artifact.digest, artifact.model_digest
    decides = job_decides(spec, artifact_digest)
    return JobIdentity(
        decides=decides,
        job_digest=digest_of(decides),
        artifact_digest=artifact_digest,
        model_digest=model_digest,
        prompt_digest=digest_of(decides["prompt"]),
    )
