"""A driver is paused before each of its store operations; another one finishes meanwhile.

The pause is real in all that counts: the first driver's next instruction comes after the second
driver's last one. Both run in this process, the second one inside the operation of the first.
"""

import json
import subprocess
import sys
import threading
from dataclasses import replace

import fsspec
import pytest

from rdu_batch.dataset.planning import plan_of_output
from rdu_batch.errors import OutputMismatch, OutputOwned
from rdu_batch.job.loading import load_spec
from rdu_batch.job.plan import Plan
from rdu_batch.report.progress import Silent
from rdu_batch.runner.epochs import last_result, take_epoch
from rdu_batch.runner.identity import identify_job
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.lease_run import LeaseRunner
from rdu_batch.runner.leases import Lease, SealTask
from rdu_batch.runner.outcomes import Outcome
from rdu_batch.runner.process_mark import ProcessMark, mark_of_this_process
from rdu_batch.runner.run_job import run_job
from rdu_batch.runner.run_layout import driver_epoch, driver_heartbeat
from rdu_batch.runner.sealing import seal_shard
from rdu_batch.runner.verify import verify_output
from rdu_batch.storage.local_store import LocalStore
from rdu_batch.storage.remote_store import RemoteStore
from rdu_batch.storage.store import open_store

#: Steps of a store that are one and whole. Others are made of these.
STEPS = (
    *("stat", "read", "read_range", "list_objects"),
    *("put_whole", "put_file", "create_once", "copy", "delete"),
)
#: No beat but the first: what is noticed is noticed by the looks before each step.
HEARTBEAT_S = 3600.0

DECIDES = {"output": {"format": "jsonl"}}


class Pauses:
    """Counts the steps of stores and calls something before the chosen one."""

    def __init__(self, monkeypatch):
        self.at = None
        self.during = None
        self.name = None
        self._num_steps = 0
        self._depth = 0
        for store_class in (LocalStore, RemoteStore):
            for step in STEPS:
                if step in vars(store_class):
                    self._wrap(monkeypatch, store_class, step)

    def arm(self, at, during):
        """Before step ``at``, counted from now, call ``during`` once."""
        self.at, self.during, self.name, self._num_steps = at, during, None, 0

    def _wrap(self, monkeypatch, store_class, step):
        original = getattr(store_class, step)

        def passing(store, *arguments, **options):
            # A step may be made of others; a pause inside it would be none that the store has.
            is_outermost = (
                self._depth == 0 and threading.current_thread() is threading.main_thread()
            )
            if is_outermost:
                self._pass_by(step, arguments)
            self._depth += is_outermost
            try:
                return original(store, *arguments, **options)
            finally:
                self._depth -= is_outermost

        monkeypatch.setattr(store_class, step, passing)

    def _pass_by(self, step, arguments):
        self._num_steps += 1
        if self._num_steps == self.at:
            self.at = None
            self.name = (step, arguments[-1] if step == "copy" else arguments[0])
            self.during()


@pytest.fixture(scope="module")
def gone():
    """The mark of a process that has ended."""
    code = (
        "import json; from rdu_batch.runner.process_mark import mark_of_this_process as mark; "
        "print(json.dumps(mark().to_json()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def contents(store):
    return {name: store.read(name) for name in store.list_names("", recursive=True)}


def published(tree):
    return {name: content for name, content in tree.items() if not name.startswith("_run/")}


@pytest.fixture(params=["local", pytest.param("memory", marks=pytest.mark.all_only)])
def base(request, job, tmp_path):
    """URL of a folder for outputs, on a disk and in memory."""
    if request.param == "local":
        yield str(job.folder / "outs")
        return
    url = f"memory://{tmp_path.name}"
    yield url
    fsspec.filesystem("memory").rm(url, recursive=True)


@pytest.fixture
def spec_for(job):
    """The job's spec with another output."""

    def spec_for(url):
        return load_spec(job.path.read_text(), source="job", overrides=[f"output.url={url}"])

    return spec_for


@pytest.fixture
def run(spec_for):
    """Run the job to another output, in this process."""

    def run(url):
        return run_job(spec_for(url), executor="inline", progress=Silent(), heartbeat_s=HEARTBEAT_S)

    return run


def test_a_driver_paused_before_any_step_changes_nothing_when_it_wakes_up(
    job, base, run, make_lines, troubled_lines, monkeypatch, gone
):
    """Every object of the finished output keeps its bytes; the late driver says so: exit 14."""
    assert mark_of_this_process() is not None
    job.write([*make_lines(9), *troubled_lines], rows_per_shard=7)
    run(f"{base}/calm")
    calm = published(contents(open_store(f"{base}/calm")))
    pauses = Pauses(monkeypatch)
    steps, ends = [], []
    while True:
        url = f"{base}/{len(steps)}"
        store = open_store(url)
        trees = []

        def finish_as_another(url=url, store=store, trees=trees):
            if store.exists(driver_epoch(1)):
                # As if the paused driver's machine had lost it: taken over without a wait.
                owner = json.loads(store.read(driver_epoch(1)))
                store.put_whole(driver_epoch(1), json.dumps({**owner, "process": gone}).encode())
            assert run(url).exit == 0
            trees.append((contents(store), last_result(store)))

        pauses.arm(len(steps) + 1, finish_as_another)
        try:
            ends.append(run(url).state)
        except OutputOwned:
            ends.append("fenced")
        if pauses.name is None:
            break
        steps.append(pauses.name)
        (before, reported), after = trees[0], contents(store)
        # The crumbs of a probe are its own, and go with its end.
        kept = {name for name in before if not name.startswith("_run/probe/")}
        changed = {name for name in kept & after.keys() if after[name] != before[name]}
        assert changed <= {driver_heartbeat(1)}, steps[-1]
        # All shards are committed: their segments are nobody's any more.
        assert all(name.startswith("_run/segments/") for name in kept - after.keys()), steps[-1]
        assert published(after) == calm, steps[-1]
        assert verify_output(store).is_sound
        assert reported is None or last_result(store) == reported
        assert run(url).state == "already complete"

    taken = steps.index(("create_once", driver_epoch(1)))
    assert set(ends[: taken + 1]) == {"already complete"}
    # After _SUCCESS there is nothing left to take over.
    done = steps.index(("put_whole", "_SUCCESS"))
    assert set(ends[taken + 1 : done + 1]) == {"fenced"}
    assert set(ends[done + 1 :]) == {"complete"}
    for step in (
        "_run/segments/",
        "_run/sealed/",
        "_run/commits/",
        "part-",
        "manifest",
        "_SUCCESS",
    ):
        assert any(name.startswith(step) for _, name in steps), step


def late_seal(runner):
    runner.run(SealTask(0))


def late_lease(runner):
    runner.run(Lease(9, 0, 2, 6, covers_shard=False))


def late_shard(runner):
    runner.run(Lease(9, 0, 0, 7, covers_shard=True))


@pytest.mark.parametrize("late", [late_seal, late_lease, late_shard])
def test_a_worker_of_an_earlier_epoch_may_store_before_any_step_of_a_later_one(
    late, job, base, run, spec_for, make_lines, monkeypatch, gone
):
    """Sealing and deleting the segments that the later epoch counts on costs work, no byte."""
    job.write(make_lines(9), rows_per_shard=7)
    run(f"{base}/calm")
    calm = published(contents(open_store(f"{base}/calm")))
    pauses = Pauses(monkeypatch)
    num_steps = 0
    while num_steps == 0 or pauses.name is not None:
        spec = spec_for(f"{base}/{num_steps}")
        store = open_store(spec.output.url)
        plan = plan_of_output(store, spec, identify_job(spec).artifact_digest)
        owner = replace(take_epoch(store, 1, HEARTBEAT_S), process=ProcessMark.from_json(gone))
        store.put_whole(driver_epoch(1), owner.to_bytes())
        # No epoch follows this number, so its look finds nothing: as if it had looked before.
        with LeaseRunner(JobContext(spec, plan.digest, 1_000_000)) as runner:
            runner.run(Lease(0, 0, 0, 4, covers_shard=False))
            runner.run(Lease(1, 0, 4, 7, covers_shard=False))
            num_steps += 1
            pauses.arm(num_steps, lambda runner=runner: late(runner))
            assert run(spec.output.url).state == "complete"
            pauses.at = None
        assert published(contents(store)) == calm, pauses.name
        assert verify_output(store).is_sound
    assert num_steps > 40


def test_a_shard_that_another_plan_committed_is_not_published(base):
    """The output was emptied and begun anew while a worker was paused: nothing of it is mixed."""
    store = open_store(f"{base}/emptied")
    here, gone_plan = (Plan(3, "test", "d", DECIDES, 1, 4, 40, n, (), ()) for n in (4, 2))
    line = Outcome(True, "eos", b'{"row":[0,1]}\n', 3, 5)
    seal_shard(store, here, here.shard(0), [line] * 4)
    before = published(contents(store))
    with pytest.raises(OutputMismatch, match="another"):
        seal_shard(store, gone_plan, gone_plan.shard(0), [line] * 2)
    assert published(contents(store)) == before
