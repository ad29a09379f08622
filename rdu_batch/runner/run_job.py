"""One run of a job from its spec to its summary: plan, resume, lease, finish.

The same call begins a job, resumes it, or finds it complete. Everything it needs to resume lies
in the output store.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from rdu_batch.dataset.planning import check_same_job, load_plan, plan_of_output
from rdu_batch.errors import ObjectMissing, OutputMismatch, RduBatchError, StoreError
from rdu_batch.job.plan import Plan
from rdu_batch.job.spec import JobSpec
from rdu_batch.report.progress import Progress
from rdu_batch.report.summary import Summary
from rdu_batch.report.wording import counted
from rdu_batch.runner.driver import Driver
from rdu_batch.runner.epochs import take_epoch, write_result
from rdu_batch.runner.executor import Executor
from rdu_batch.runner.identity import JobIdentity, identify_job
from rdu_batch.runner.inline_executor import InlineExecutor
from rdu_batch.runner.job_context import JobContext, with_absolute_urls
from rdu_batch.runner.manifest import read_manifest, read_success, write_manifest
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.resume import look_back
from rdu_batch.runner.run_layout import PROBE_FOLDER
from rdu_batch.runner.scheduler import Scheduler
from rdu_batch.runner.stops import StopRequest
from rdu_batch.storage.probe import check_create_once
from rdu_batch.storage.store import Store, open_store

ExecutorKind = Literal["ray", "inline"]

EXIT_COMPLETE = 0
EXIT_TOO_MANY_DEAD = 5


def run_job(
    spec: JobSpec,
    *,
    executor: ExecutorKind = "ray",
    address: str | None = None,
    progress: Progress,
) -> Summary:
    """Run a job to its end, or go on with it, or find that it is complete.

    Args:
        spec: the job.
        executor: ``ray``, or ``inline`` for one worker in this process.
        address: of the Ray cluster; see ``ray_executor.connect``.
        progress: where to show what is going on.

    Returns:
        The summary, with exit code 0, or 5 if more rows are dead than the job allows.

    Raises:
        RduBatchError: with the exit code of its class; what is finished is kept.
    """
    stop = StopRequest()
    with stop.watch(spec.limits.deadline_s):
        return _JobRun(spec, stop, progress).run(executor, address)


class _JobRun:
    def __init__(self, spec: JobSpec, stop: StopRequest, progress: Progress) -> None:
        self._spec = spec
        self._stop = stop
        self._progress = progress
        self._started_s = time.monotonic()

    def run(self, executor: ExecutorKind, address: str | None) -> Summary:
        with self._stop.raising():
            store = open_store(self._spec.output.url)
            identity = identify_job(self._spec)
            done = self._already_complete(store, identity)
            if done is not None:
                return done
            plan = self._plan(store, identity)
            epoch = take_epoch(store)
        try:
            return self._run_epoch(store, identity, plan, epoch, executor, address)
        except RduBatchError as error:
            # The store may be what failed; the error itself is what the caller must see.
            with suppress(StoreError):
                result = {"exit": error.exit_code, "error": type(error).__name__}
                write_result(store, epoch, {**result, "message": str(error)})
            raise

    def _already_complete(self, store: Store, identity: JobIdentity) -> Summary | None:
        success = read_success(store)
        if success is None:
            return None
        if success.job_digest != identity.job_digest:
            plan = load_plan(store)
            if plan is not None:
                check_same_job(plan, identity.decides, store)
            raise OutputMismatch(
                f"{store.url} holds another job, whose plan is gone. Choose another output.url, "
                "or delete that folder to start anew."
            )
        try:
            manifest, _ = read_manifest(store)
        except ObjectMissing:
            # Lost since: the plan and the commit records are enough to write it again.
            return None
        totals = Totals.from_json(manifest["totals"])
        return self._summary(
            "already complete",
            store,
            totals,
            len(manifest["parts"]),
            job_digest=identity.job_digest,
        )

    def _plan(self, store: Store, identity: JobIdentity) -> Plan:
        if store.protocol != "file":
            # A local folder links names, which cannot be ignored; a server may ignore conditions.
            check_create_once(store, PROBE_FOLDER)
        self._progress.phase("planning: listing, pinning and indexing the inputs")
        plan = plan_of_output(store, self._spec, identity.artifact_digest)
        self._progress.phase(
            f"plan: {counted(plan.num_rows, 'row')} of {counted(plan.num_files, 'file')} "
            f"in {counted(plan.num_shards, 'shard')}"
        )
        return plan

    def _run_epoch(
        self,
        store: Store,
        identity: JobIdentity,
        plan: Plan,
        epoch: int,
        executor: ExecutorKind,
        address: str | None,
    ) -> Summary:
        with self._stop.raising():
            left = look_back(store, plan)
        context = JobContext(with_absolute_urls(self._spec), plan.digest, epoch)
        leased, num_workers, num_lost = Totals(), 0, 0
        if len(left.committed) < plan.num_shards:
            with self._executor(executor, context, address) as workers:
                scheduler = Scheduler(
                    plan=plan,
                    num_workers=self._num_workers(workers),
                    attempts_per_row=self._spec.limits.attempts_per_row,
                    committed=left.committed,
                    begun=left.begun,
                )
                self._drive(scheduler, workers, plan.num_rows - left.num_pending_rows)
                leased = scheduler.leased_totals
                num_workers, num_lost = scheduler.num_workers, scheduler.num_workers_lost
        totals = write_manifest(store, plan, identity)
        summary = self._summary(
            "complete",
            store,
            totals,
            plan.num_shards,
            leased=leased,
            workers=num_workers,
            workers_lost=num_lost,
            job_digest=identity.job_digest,
        )
        write_result(store, epoch, summary.to_json())
        return summary

    def _drive(self, scheduler: Scheduler, executor: Executor, rows_done_before: int) -> None:
        self._progress.phase(f"starting {counted(scheduler.num_workers, 'worker')}")
        driver = Driver(
            scheduler,
            executor,
            stop=self._stop,
            progress=self._progress,
            start_timeout_s=self._spec.limits.start_timeout_s,
            rows_done_before=rows_done_before,
        )
        driver.run()

    @contextmanager
    def _executor(
        self, kind: ExecutorKind, context: JobContext, address: str | None
    ) -> Iterator[Executor]:
        if kind == "inline":
            inline = InlineExecutor(context, should_stop=self._stop.is_requested)
            try:
                yield inline
            finally:
                inline.stop()
            return
        from rdu_batch.runner import ray_executor

        try:
            with self._stop.raising():
                self._progress.phase("connecting to Ray")
                ray_executor.connect(address)
                # ray.init puts its own handlers in the place of ours.
                self._stop.listen()
            workers = ray_executor.RayExecutor(context)
            try:
                yield workers
            finally:
                workers.stop()
        finally:
            ray_executor.disconnect()

    def _num_workers(self, executor: Executor) -> int:
        workers = self._spec.workers
        if isinstance(executor, InlineExecutor):
            return 1
        if isinstance(workers.count, int):
            return workers.count
        return max(workers.min, min(executor.num_slots, workers.max or executor.num_slots))

    def _summary(
        self,
        state: str,
        store: Store,
        totals: Totals,
        num_shards: int,
        *,
        leased: Totals | None = None,
        workers: int = 0,
        workers_lost: int = 0,
        job_digest: str,
    ) -> Summary:
        wall_s = time.monotonic() - self._started_s
        leased = leased or Totals()
        allowed = self._spec.limits.allows(totals.dead, totals.rows)
        return Summary(
            name=self._spec.name,
            state=state,
            exit=EXIT_COMPLETE if allowed else EXIT_TOO_MANY_DEAD,
            output=store.url,
            rows=totals.rows,
            predictions=totals.predictions,
            dead=totals.dead,
            shards=num_shards,
            prompt_tokens=totals.prompt_tokens,
            generated_tokens=totals.generated_tokens,
            finish_reasons=totals.finish_reasons,
            dead_reasons=totals.dead_reasons,
            rows_resumed=max(0, totals.rows - leased.rows) if state == "complete" else 0,
            wall_s=wall_s,
            tokens_per_s=leased.generated_tokens / wall_s if wall_s > 0 else 0.0,
            workers=workers,
            workers_lost=workers_lost,
            job_digest=job_digest,
        )
