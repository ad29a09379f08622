"""What a worker checks before it runs a row, and when a lease ends early."""

import json
from dataclasses import replace

import pytest

from rdu_batch.dataset.planning import plan_of_output
from rdu_batch.errors import ArtifactError, OutputMismatch
from rdu_batch.job.loading import load_spec
from rdu_batch.runner import lease_run
from rdu_batch.runner.identity import identify_job
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.lease_run import LeaseRunner
from rdu_batch.runner.leases import Lease
from rdu_batch.sessions.artifact import Artifact, Target
from rdu_batch.storage.store import open_store

ARTIFACT = Artifact(
    kind="eager",
    dtype="fp32",
    max_seq_length=64,
    prefill_chunk=1,
    cache_length=65,
    num_layers=0,
    num_kv_heads=0,
    head_size=0,
    vocab_size=257,
    threads=None,
    model_family="none",
    model_digest="sha256:1",
    settings_digest="sha256:2",
    target=Target("cpu", "", "", (), "", ""),
    files={},
)


def context_of(job):
    """The spec of a job file with its plan in the store, as a driver hands it to its workers."""
    spec = load_spec(job.path.read_text(), source=str(job.path))
    store = open_store(spec.output.url)
    plan = plan_of_output(store, spec, identify_job(spec).artifact_digest)
    return JobContext(spec, plan.digest, 1)


def test_an_artifact_that_changed_since_the_plan_is_refused_before_it_is_opened(job, make_lines):
    """A recompile to the same URL while a job runs would mix two models in one output."""
    folder = job.folder / "artifact"
    folder.mkdir()
    (folder / "artifact.json").write_bytes(ARTIFACT.to_bytes())
    job.write(make_lines(3), session={"kind": "fake", "artifact": str(folder)})
    context = context_of(job)
    LeaseRunner(context).close()
    (folder / "artifact.json").write_bytes(replace(ARTIFACT, max_seq_length=32).to_bytes())
    with pytest.raises(ArtifactError, match="was changed while the job was unfinished"):
        LeaseRunner(context)


def test_a_worker_that_sees_another_output_is_refused(job, make_lines):
    """A local path on another machine, say: its plan is not the driver's."""
    context = context_of(job.write(make_lines(3)))
    with pytest.raises(OutputMismatch, match="same output store"):
        LeaseRunner(replace(context, plan_digest="sha256:another"))


def test_a_lease_of_rows_that_turn_out_slow_ends_early(job, monkeypatch):
    """What is finished becomes durable; the rest goes back to the driver."""
    monkeypatch.setattr(lease_run, "LONGEST_LEASE_S", 0.5)
    lines = [json.dumps({"text": f"{n} [[fake:sleep 0.2]]"}).encode() for n in range(20)]
    with LeaseRunner(context_of(job.write(lines, rows_per_shard=20))) as runner:
        done = runner.run(Lease(0, 0, 0, 20, covers_shard=True))
    assert 1 <= done.end_row < 20
    assert not done.is_committed
    assert len(list(job.output.glob("_run/segments/00000/*.seg"))) == 1
