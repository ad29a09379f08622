"""Retry-dead: runs dead letters of a finished output again, into a new output.

What is committed never changes, so the parent stays as it is; the new output holds all of its rows.
This is a run like any other but for what it finds at its start (see ``retry_seed.py``): it resumes,
is fenced and verified in the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rdu_batch.dataset.planning import load_plan
from rdu_batch.errors import UsageError
from rdu_batch.job.reasons import Reason
from rdu_batch.job.spec import JobSpec
from rdu_batch.report.progress import Progress
from rdu_batch.report.summary import Summary
from rdu_batch.report.wording import counted
from rdu_batch.runner.executor_choice import ExecutorKind
from rdu_batch.runner.manifest import read_success
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.retry_seed import RetrySeed, open_parent
from rdu_batch.runner.run_job import run_job
from rdu_batch.storage.options_in_force import use_storage_options
from rdu_batch.storage.store import Store, open_store


def retry_dead_letters(
    spec: JobSpec,
    *,
    parent: str,
    into: str,
    reasons: Collection[Reason] = (),
    executor: ExecutorKind = "ray",
    address: str | None = None,
    progress: Progress,
) -> Summary:
    """Run dead letters of a finished output again, or go on with that, or find it complete.

    Args:
        spec: the parent's job; name, limits, workers and the place of its artifact may differ. Its
            ``output.url`` does not count.
        parent: URL of the finished output; only read.
        into: URL of the new output.
        reasons: of the dead letters to run again; empty for all.
        executor: see ``run_job``.
        address: see ``run_job``.
        progress: where to show what is going on.

    Returns:
        The summary of the new output, as of a run.

    Raises:
        UsageError: both URLs are the same, or the parent has no dead letter of the named reasons.
        OutputMismatch: the parent is unfinished or of another job, or the new output holds
            something else (exit 3).
        VerifyFailed: the parent is damaged (exit 7).
        RduBatchError: as of ``run_job``.
    """
    use_storage_options(spec, more_outputs=(parent, into))
    parent_store, new_store = open_store(parent), open_store(into)
    url = new_store.url
    if parent_store.url == url:
        raise UsageError(
            f"{url} is the parent itself, and what is committed never changes; name another, new "
            "output with --into"
        )
    seed = open_parent(parent_store, reasons or list(Reason))
    dead = Totals.from_json(seed.finished.manifest["totals"]).dead_reasons
    retried = seed.parent.reasons or ()
    if reasons and not retried and not _is_finished_retry(new_store, seed):
        raise UsageError(_nothing_to_retry(parent_store.url, reasons, dead))
    num_retried = sum(dead[reason] for reason in retried)
    names = f" ({', '.join(retried)})" if retried else ""
    progress.phase(
        f"retry: {counted(num_retried, 'dead letter')} of {parent_store.url} run again{names}; all "
        "other rows are taken over"
    )
    output = spec.output.model_copy(update={"url": into})
    return run_job(
        spec.model_copy(update={"output": output}),
        executor=executor,
        address=address,
        progress=progress,
        retry=seed,
    )


def _is_finished_retry(new: Store, seed: RetrySeed) -> bool:
    if read_success(new) is None:
        return False
    plan = load_plan(new)
    return plan is not None and plan.parent == seed.parent


def _nothing_to_retry(parent_url: str, reasons: Collection[Reason], dead: Mapping[str, int]) -> str:
    found = ", ".join(f"{reason} {number:,}" for reason, number in sorted(dead.items()))
    has = (
        f"it has: {found}; name one of these, or leave --reason out for all"
        if found
        else "it has none at all"
    )
    return (
        f"no dead letters of {' or '.join(reasons)} in {parent_url}; {has}. Nothing was made: a "
        "retry of no row would be a mere copy"
    )
