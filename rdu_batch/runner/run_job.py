"""One run of a job from its spec to its summary: plan, resume, lease, finish.

The same call begins a job, resumes it, or finds it complete. Everything it needs to resume lies
in the output store.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from rdu_batch.dataset.local_counting import local_counting
from rdu_batch.dataset.planning import check_same_job, load_plan, plan_of_output
from rdu_batch.errors import (
    ObjectMissing,
    OutputMismatch,
    OutputOwned,
    RduBatchError,
    StoreError,
)
from rdu_batch.job.plan import Plan
from rdu_batch.job.spec import JobSpec
from rdu_batch.report.metrics import MetricsSink
from rdu_batch.report.progress import Progress
from rdu_batch.report.summary import COMPLETE, Summary
from rdu_batch.report.wording import counted
from rdu_batch.runner.delta_seed import DeltaSeed, open_since
from rdu_batch.runner.driver import Driver
from rdu_batch.runner.epochs import Owner, take_epoch, write_result
from rdu_batch.runner.executor import Executor
from rdu_batch.runner.executor_choice import ExecutorKind, num_workers_on, open_executor
from rdu_batch.runner.fencing import check_epoch
from rdu_batch.runner.heartbeat import Heartbeat, heartbeat_s_of
from rdu_batch.runner.identity import JobIdentity, identify_job
from rdu_batch.runner.job_context import JobContext, with_absolute_urls
from rdu_batch.runner.manifest import read_manifest, read_success, write_manifest
from rdu_batch.runner.outcomes import Totals
from rdu_batch.runner.outlook import predict_run
from rdu_batch.runner.page_out import leave_page_of_failure
from rdu_batch.runner.parents import check_parent, parent_in
from rdu_batch.runner.part_formats import check_can_pack
from rdu_batch.runner.ray_counting import ray_counting
from rdu_batch.runner.resume import look_back
from rdu_batch.runner.retry_seed import RetrySeed
from rdu_batch.runner.run_account import RunAccount, result_of_failure
from rdu_batch.runner.run_layout import PROBE_FOLDER
from rdu_batch.runner.run_summary import Epoch, summary_of
from rdu_batch.runner.scheduler import Scheduler
from rdu_batch.runner.sinks import RunSinks
from rdu_batch.runner.stops import StopRequest
from rdu_batch.runner.submission import SUBMISSION_ID_ENV
from rdu_batch.runner.takeover import wait_until_free
from rdu_batch.storage.options_in_force import use_storage_options
from rdu_batch.storage.output_store import check_output, open_output
from rdu_batch.storage.store import Store


def run_job(
    spec: JobSpec,
    *,
    executor: ExecutorKind = "ray",
    address: str | None = None,
    progress: Progress,
    heartbeat_s: float | None = None,
    retry: RetrySeed | None = None,
    ends_process: bool = True,
) -> Summary:
    """Run a job to its end, or go on with it, or find that it is complete.

    Args:
        spec: the job.
        executor: ``ray``, or ``inline`` for one worker in this process.
        address: of the Ray cluster; see ``ray_connection.RayConnection``.
        progress: where to show what is going on.
        heartbeat_s: how often this driver moves its heartbeat; None follows the environment (see
            ``heartbeat_s_of``).
        retry: what the output begins with, for a retry of dead letters.
        ends_process: whether this process ends after a stop (see ``StopRequest.watch``).

    Returns:
        The summary, with exit code 0, or 5 if more rows are dead than the job allows.

    Raises:
        RduBatchError: with the exit code of its class; what is finished is kept.
    """
    use_storage_options(spec)
    stop = StopRequest()
    heartbeat_s = heartbeat_s or heartbeat_s_of(os.environ)
    sinks = RunSinks(spec.name, executor, progress.phase, stop.is_requested)
    with stop.watch(spec.limits.deadline_s, ends_process=ends_process), sinks:
        return _JobRun(spec, stop, progress, heartbeat_s, retry, sinks).run(executor, address)


class _JobRun:
    def __init__(
        self,
        spec: JobSpec,
        stop: StopRequest,
        progress: Progress,
        heartbeat_s: float,
        retry: RetrySeed | None,
        sinks: RunSinks,
    ) -> None:
        self._sinks = sinks
        self._spec = spec
        self._stop = stop
        self._progress = progress
        self._heartbeat_s = heartbeat_s
        #: What the output begins with: given, or opened for ``input.since``.
        self._seed: RetrySeed | DeltaSeed | None = retry
        self._started_s, self._began_s = time.monotonic(), time.time()
        #: Of this epoch; nothing where no worker was wanted.
        self._account = RunAccount()

    def run(self, executor: ExecutorKind, address: str | None) -> Summary:
        with self._stop.raising():
            output = self._spec.output
            check_can_pack(output.format)
            store = open_output(output.url, single_writer=output.single_writer)
            identity = identify_job(self._spec)
            done = self._already_complete(store, identity)
            if done is not None:
                return done
            if self._seed is None and self._spec.input.since is not None:
                since = open_since(self._spec.input.since, store)
                since.check_job(identity.decides)
                self._seed = since
            plan = self._plan(store, identity, executor, address)
            taken = self._take_epoch(store, identity)
            if isinstance(taken, Summary):
                return taken
        try:
            with Heartbeat(store, taken) as heartbeat:
                return self._run_epoch(store, identity, plan, heartbeat, executor, address)
        except OutputOwned:
            # Fenced: everything is left as it is, and this epoch reports nothing.
            raise
        except RduBatchError as error:
            # The store may be what failed; the error itself is what the caller must see.
            with suppress(StoreError):
                check_epoch(store, taken.epoch, taken.token)
                told = result_of_failure(error, self._account, time.monotonic() - self._started_s)
                self._report(store, taken.epoch, told)
                if self._account.workers and not self._stop.is_requested():
                    leave_page_of_failure(store, error, self._progress.phase)
            raise

    def _report(self, store: Store, epoch: int, told: dict[str, Any]) -> None:
        """Record how this epoch ended, with what the summary leaves out."""
        times = {"began_s": round(self._began_s, 3), "ended_s": round(time.time(), 3)}
        write_result(store, epoch, {**told, **times, **self._account.to_json()})

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
        if self._seed is not None:
            check_parent(store, parent_in(manifest), self._seed.parent)
        totals = Totals.from_json(manifest["totals"])
        return summary_of(
            self._spec,
            store,
            totals,
            len(manifest["parts"]),
            Epoch("already complete", time.monotonic() - self._started_s),
            identity.job_digest,
        )

    def _plan(
        self, store: Store, identity: JobIdentity, executor: ExecutorKind, address: str | None
    ) -> Plan:
        check_output(store, PROBE_FOLDER)
        if isinstance(self._seed, RetrySeed):
            plan = self._seed.plan(store, identity.decides)
        else:
            self._progress.phase("planning: listing, pinning and indexing the inputs")
            counting = local_counting(use_storage_options, self._spec)
            if executor == "ray":
                counting = ray_counting(self._spec, address, self._stop, self._progress, counting)
            parent = self._seed.parent if self._seed else None
            plan = plan_of_output(
                store,
                self._spec,
                identity.artifact_digest,
                count_ranges=counting,
                parent=parent,
                say=self._progress.phase,
            )
            check_parent(store, plan.parent, parent)
        self._progress.phase(
            f"plan: {counted(plan.num_rows, 'row')} of {counted(plan.num_files, 'file')} "
            f"in {counted(plan.num_shards, 'shard')}"
        )
        return plan

    def _take_epoch(self, store: Store, identity: JobIdentity) -> Owner | Summary:
        """The next epoch, once no living driver holds the last; a summary if that one finished.

        Raises:
            OutputOwned: a living driver holds it. Ends the job.
        """
        while True:
            last = wait_until_free(store, self._progress.phase)
            done = self._already_complete(store, identity)
            if done is not None:
                return done
            owner = take_epoch(
                store, last + 1, self._heartbeat_s, os.environ.get(SUBMISSION_ID_ENV)
            )
            if owner is not None:
                return owner

    def _run_epoch(
        self,
        store: Store,
        identity: JobIdentity,
        plan: Plan,
        heartbeat: Heartbeat,
        executor: ExecutorKind,
        address: str | None,
    ) -> Summary:
        with self._stop.raising():
            if self._seed is not None:
                self._progress.phase("taking over what is kept of the parent")
                self._seed.seed(store, plan, heartbeat.confirm)
            left = look_back(store, plan)
        owner = heartbeat.owner
        spec = with_absolute_urls(self._spec)
        context = JobContext(spec, plan.digest, owner.epoch, owner.token)
        epoch = Epoch(COMPLETE)
        if len(left.committed) < plan.num_shards:
            with open_executor(
                executor,
                context,
                address=address,
                stop=self._stop,
                progress=self._progress,
                is_fenced=lambda: heartbeat.is_lost,
            ) as workers:
                scheduler = Scheduler(
                    plan=plan,
                    num_workers=num_workers_on(workers, self._spec.workers),
                    attempts_per_row=self._spec.limits.attempts_per_row,
                    committed=left.committed,
                    begun=left.begun,
                )
                epoch.predicted_wall_s = predict_run(
                    self._spec,
                    store,
                    plan,
                    num_rows=left.num_pending_rows,
                    num_workers=scheduler.num_workers,
                )
                rows_done_before = plan.num_rows - left.num_pending_rows
                self._drive(scheduler, workers, rows_done_before, heartbeat, self._sinks.open())
                epoch.leased = scheduler.leased_totals
                epoch.num_workers = scheduler.num_workers
                epoch.num_workers_lost = scheduler.num_workers_lost
        totals = write_manifest(store, plan, identity, confirm=heartbeat.confirm)
        epoch.worker_seconds = self._account.seconds
        epoch.wall_s = time.monotonic() - self._started_s
        summary = summary_of(self._spec, store, totals, plan.num_shards, epoch, identity.job_digest)
        heartbeat.confirm()
        self._report(store, owner.epoch, summary.to_json())
        return summary

    def _drive(
        self,
        scheduler: Scheduler,
        executor: Executor,
        rows_done_before: int,
        heartbeat: Heartbeat,
        metrics: MetricsSink,
    ) -> None:
        workers = self._spec.workers
        self._progress.phase(f"starting {counted(scheduler.num_workers, 'worker')}")
        follows = workers.count == "auto"
        num_wanted = (lambda: num_workers_on(executor, workers)) if follows else None
        driver = Driver(
            scheduler,
            executor,
            stop=self._stop,
            progress=self._progress,
            start_timeout_s=self._spec.limits.start_timeout_s,
            rows_done_before=rows_done_before,
            num_wanted=num_wanted,
            owns=heartbeat.owns,
            metrics=metrics,
        )
        try:
            driver.run()
        finally:
            self._account = driver.account()
