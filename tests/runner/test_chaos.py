"""Chaos: which trials there are, what they are judged by, and that a sweep finds what is broken."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from rdu_batch.errors import UsageError
from rdu_batch.runner.chaos_matrix import ChaosReport, Verdict
from rdu_batch.runner.chaos_points import (
    Fault,
    Point,
    Trial,
    applies,
    choose,
    places_to_kill,
    points_of,
    trials_of,
    without_known,
)
from rdu_batch.runner.chaos_promises import Evidence, Promise, Reference, RunEnd, judge
from rdu_batch.runner.chaos_ray import draw_ray_trials
from rdu_batch.storage.failpoint import WRITES, Call

# -- points and trials


def call(operation, name="a", role="worker", **values):
    return Call(role, operation, name, "done", **values)


def test_every_store_call_is_a_point_and_of_a_row_its_first_and_last_token():
    """In their order; alike ones are told by their number."""
    calls = [
        call("read", "_run/plan.json", "driver"),
        *[call("prefill", "session"), *[call("decode", "session")] * 3],
        *[call("prefill", "session"), call("decode", "session")],
        call("put_file", f"_run/sealed/00000/part-{'a' * 16}.jsonl"),
        call("put_file", f"_run/sealed/00000/part-{'b' * 16}.jsonl"),
    ]
    points = points_of(calls)
    assert [(p.number, p.operation, p.occurrence) for p in points] == [
        (1, "read", 1),
        (2, "prefill", 1),
        (3, "decode", 3),
        (4, "prefill", 2),
        (5, "decode", 4),
        (6, "put_file", 1),
        (7, "put_file", 2),
    ]
    assert str(points[-1]) == "worker put_file _run/sealed/00000/part-*.jsonl, number 2"


def fault_names(operation, role="worker", num_listed=0):
    point = Point(1, role, operation, "a", 1, num_listed)
    return {fault for fault in Fault if applies(fault, point)}


KILLS = {Fault.DRIVER_BEFORE, Fault.DRIVER_AFTER, Fault.WORKER_BEFORE, Fault.WORKER_AFTER}
LOST = {Fault.UNAVAILABLE, Fault.REPLY_LOST}


@pytest.mark.parametrize(
    ("operation", "faults"),
    [
        ("prefill", KILLS),
        ("decode", KILLS),
        ("stat", {*KILLS, Fault.UNAVAILABLE}),
        ("read", {*KILLS, Fault.UNAVAILABLE}),
        ("delete", {*KILLS, *LOST}),
        ("create_once", {*KILLS, *LOST, Fault.REPLY_DENIED}),
        *[
            (operation, {*KILLS, *LOST, Fault.TORN})
            for operation in ("put_whole", "put_file", "copy")
        ],
    ],
)
def test_each_call_meets_the_faults_that_can_happen_to_it(operation, faults):
    """A worker's; a driver's has no worker to lose."""
    assert fault_names(operation) == faults
    driver_faults = faults - {Fault.WORKER_BEFORE, Fault.WORKER_AFTER}
    assert fault_names(operation, "driver") == driver_faults


def test_a_listing_can_be_stale_as_far_as_there_is_something_to_miss():
    """Of one object, stale and empty are the same."""
    plain = {*KILLS, Fault.UNAVAILABLE}
    assert fault_names("list_objects", num_listed=0) == plain
    assert fault_names("list_objects", num_listed=1) == {*plain, Fault.STALE_LISTING}
    both = {*plain, Fault.STALE_LISTING, Fault.EMPTY_LISTING}
    assert fault_names("list_objects", num_listed=2) == both


def test_runs_that_go_on_add_what_no_other_such_run_does():
    """Their points are numbered on; a listing is always another one."""
    first = points_of([call("read"), call("stat")])
    place = first[0]
    second = without_known(points_of([call("read"), call("list_objects")], killed_at=place), first)
    third_calls = [call("read"), call("copy"), call("list_objects")]
    third = without_known(points_of(third_calls, killed_at=first[1]), [*first, *second])
    assert [(p.number, p.operation) for p in second] == [(3, "read"), (4, "list_objects")]
    assert [(p.number, p.operation) for p in third] == [(5, "copy"), (6, "list_objects")]
    assert "goes on after a kill behind 2" in str(third[0])


def test_first_runs_are_killed_behind_a_commit_a_segment_and_a_publication():
    """So the next one has all there is to go on from; a job too small for one does without."""
    names = [
        *[("put_file", f"_run/segments/0000{n}/x") for n in range(2)],
        *[("create_once", f"_run/commits/0000{n}.json") for n in range(3)],
        *[("copy", f"part-{n}") for n in range(2)],
    ]
    points = points_of(call(*name) for name in names)
    assert [p.name for p in places_to_kill(points)] == [
        "_run/segments/00001/x",
        "_run/commits/00001.json",
        "part-1",
    ]
    assert places_to_kill(points_of([call("read")])) == []


def test_only_names_one_trial_or_all_of_a_fault():
    """What there is not is exit 2, saying what there is."""
    trials = list(trials_of(points_of([call("read"), call("create_once"), call("create_once")])))
    assert choose(trials, []) == trials
    labels = [trial.label for trial in choose(trials, ["503 @ 1", "reply lost, asked again"])]
    assert labels == ["503 @ 1", "reply lost, asked again @ 2", "reply lost, asked again @ 3"]
    with pytest.raises(UsageError, match=r"2 points from 2 to 3, not at this one"):
        choose(trials, ["reply lost @ 1"])
    with pytest.raises(UsageError, match=r"FAULT is one of: driver killed before; "):
        choose(trials, ["earthquake @ 1"])


def test_a_draw_through_ray_is_repeated_by_its_seed_and_has_every_fault():
    """Another seed draws other moments."""
    shape = {"num_shards": 4, "rows_per_shard": 4}
    draws = draw_ray_trials(10, 7, **shape)
    assert draws == draw_ray_trials(10, 7, **shape)
    assert draws != draw_ray_trials(10, 8, **shape)
    assert sorted(draw.number for draw in draws) == list(range(1, 11))
    assert len({draw.fault for draw in draws}) == 5
    single = draw_ray_trials(50, 7)
    assert not any("segments" in draw.place or "number 2" in draw.place for draw in single)
    assert [draw.label for draw in single[:1]] == [draw.label for draw in draws[:1]]


# -- judging

CALM_OBJECTS = {"part-00000-of-00001.jsonl": "p", "_SUCCESS": "s", "_run/commits/00000.json": "c"}
REFERENCE = Reference(3, {"part-00000-of-00001.jsonl": "p", "_SUCCESS": "s"})
COMMIT = call("create_once", "_run/commits/00000.json", sha256="c", told=True)
SUCCESS = call("put_whole", "_SUCCESS", "driver", sha256="s")
KILLED, DONE, AGAIN = RunEnd(9, 0), RunEnd(0, 0, "complete"), RunEnd(0, 0, "already complete")
FAILED = RunEnd(0, 6, "", "StoreError: away")


def evidence_of(*, ends=(KILLED, DONE, AGAIN), calls=((), (COMMIT, SUCCESS), ()), **values):
    sound = {"num_before": 0, "is_struck": True, "problems": [], "num_rows": 3}
    objects = {"objects": CALM_OBJECTS, "objects_after": CALM_OBJECTS}
    return Evidence(**{**sound, **objects, **values}, ends=ends, calls=calls)


def broken_by(evidence, fault=Fault.DRIVER_AFTER):
    return set(judge(evidence, fault, REFERENCE))


def test_a_sound_trial_breaks_nothing():
    """A killed run, one that goes on, and one that has nothing to do; or a failure that is told."""
    assert judge(evidence_of(), Fault.DRIVER_AFTER, REFERENCE) == {}
    failed = evidence_of(ends=(FAILED, DONE, AGAIN))
    assert judge(failed, Fault.UNAVAILABLE, REFERENCE) == {}
    before = evidence_of(
        ends=(KILLED, FAILED, DONE, AGAIN), calls=((), (), (COMMIT, SUCCESS), ()), num_before=1
    )
    assert judge(before, Fault.REPLY_LOST, REFERENCE) == {}


def test_a_row_that_verify_misses_or_that_nobody_counted_breaks_the_first_promise():
    """And no other."""
    assert broken_by(evidence_of(problems=["row 3 is missing"])) == {Promise.ROWS}
    assert broken_by(evidence_of(num_rows=2)) == {Promise.ROWS}


@pytest.mark.parametrize(
    "objects",
    [
        {**CALM_OBJECTS, "_SUCCESS": "other"},
        {**CALM_OBJECTS, "dead-00000-of-00001.jsonl": "d"},
        {name: sha for name, sha in CALM_OBJECTS.items() if not name.startswith("part")},
    ],
)
def test_other_bytes_one_file_more_or_one_less_break_the_second(objects):
    """What lies under _run is not compared."""
    evidence = evidence_of(objects=objects, objects_after=objects, calls=((), (SUCCESS,), ()))
    assert Promise.BYTES in broken_by(evidence)
    below = {**CALM_OBJECTS, "_run/drivers/000002.json": "x"}
    assert broken_by(evidence_of(objects=below, objects_after=below)) == set()


def test_a_rerun_that_never_completes_or_is_no_no_op_breaks_the_third():
    """Also one that completes a finished job again, or changes anything at all."""
    never = evidence_of(ends=(KILLED, FAILED, FAILED), objects_after=None)
    assert Promise.RESUME in broken_by(never)
    assert broken_by(evidence_of(ends=(KILLED, DONE, DONE))) == {Promise.RESUME}
    more = {**CALM_OBJECTS, "_run/results/000003.json": "x"}
    assert broken_by(evidence_of(objects_after=more)) == {Promise.RESUME}


@pytest.mark.parametrize(
    "calls",
    [
        [COMMIT, COMMIT],
        [replace(COMMIT, sha256="other"), call("delete", COMMIT.name), COMMIT],
        [COMMIT, call("read", COMMIT.name, sha256="other")],
        [COMMIT, call("copy", "part-00000-of-00001.jsonl", sha256="other")],
        [replace(COMMIT, sha256="other", end="lost")],
        [replace(COMMIT, name="_run/canary.json")],
    ],
    ids=["won twice", "deleted", "read otherwise", "published otherwise", "another's", "gone"],
)
def test_what_was_committed_and_does_not_stay_breaks_the_fourth(calls):
    """As the journal of all runs tells, whatever stands in the end."""
    assert broken_by(evidence_of(calls=((), (*calls, SUCCESS), ()))) == {Promise.COMMITS}


def test_what_may_happen_to_a_committed_object_breaks_nothing():
    """A loser's creation, a probe object of one name after the other, a torn write made good."""
    torn = Call("worker", "copy", "part-00000-of-00001.jsonl", "torn", "half")
    seen = call("read", "part-00000-of-00001.jsonl", sha256="half")
    probe = call("create_once", "_run/probe/a", sha256="x", told=True)
    fine = [
        replace(COMMIT, sha256="late", told=False),
        torn,
        seen,
        probe,
        call("delete", probe.name),
    ]
    assert broken_by(evidence_of(calls=((COMMIT, *fine), (SUCCESS,), ()))) == set()
    assert broken_by(evidence_of(unsealed=["_run/sealed/00000/part-0.jsonl"])) == {Promise.COMMITS}


@pytest.mark.parametrize(
    ("ends", "fault"),
    [
        ((RunEnd(0, 1, "", "internal error"), DONE, AGAIN), Fault.UNAVAILABLE),
        ((RunEnd(0, 3, "", "OutputMismatch: ..."), DONE, AGAIN), Fault.UNAVAILABLE),
        ((FAILED, DONE, AGAIN), Fault.STALE_LISTING),
        ((KILLED, DONE, AGAIN), Fault.UNAVAILABLE),
        ((DONE, DONE, AGAIN), Fault.DRIVER_BEFORE),
        ((RunEnd(11, 0), DONE, AGAIN), Fault.DRIVER_BEFORE),
        ((DONE, DONE, AGAIN), Fault.UNAVAILABLE),
    ],
    ids=["internal", "wrong cause", "no cause", "killed", "not killed", "signal", "exit 0 early"],
)
def test_an_exit_code_that_lies_breaks_the_fifth(ends, fault):
    """A bug, another cause than the fault, a death that nobody ordered, success too early."""
    assert broken_by(evidence_of(ends=ends), fault) == {Promise.EXIT}


def test_the_matrix_counts_what_held_and_names_what_did_not():
    """A trial that proved nothing holds nothing; either is exit 7."""
    points = points_of([call("read"), call("prefill", "session")])
    verdicts = [
        Verdict("503", 1, "worker read a"),
        Verdict("503", 2, "worker read b", {Promise.BYTES: "part-0 has other bytes"}),
    ]
    report = ChaosReport("job", "here", 3, 1, points, verdicts, 0)
    text = "\n".join(report.lines())
    assert "1 store calls and 1 row boundaries" in text
    assert "503     2/2    1/2     2/2      2/2   2/2" in text
    assert "BROKEN  503 @ 2  (worker read b)" in text
    assert "--only '503 @ 2'" in text
    document = report.to_json()
    assert (document["exit"], document["trials"], document["points"]["store"]) == (7, 2, 1)
    assert document["faults"]["503"] == {
        "trials": 2,
        **{str(promise): 2 - (promise is Promise.BYTES) for promise in Promise},
    }
    void = replace(report, verdicts=[Verdict("503", 1, "worker read a", void="not met")])
    assert (void.exit, void.to_json()["faults"]["503"]["rows"]) == (7, 0)
    assert replace(report, verdicts=verdicts[:1]).exit == 0


# -- sweeps: a process of its own, whose product a test may break before

RUN = "import sys; from rdu_batch.cli.main import run; sys.exit(run(sys.argv[1:]))"


@pytest.fixture
def sweep(job, make_lines, troubled_lines, read_last_json):
    """Run `rdu-batch chaos` on a small job, after a piece of Python that may break the product."""

    def sweep(*only, breaking="", options=()):
        job.write([*troubled_lines, *make_lines(9)])
        named = [word for text in only for word in ("--only", text)]
        # A later option wins over the same one before it.
        small = ["--rows", "6", "--ray-sample", "0"]
        arguments = ["chaos", str(job.path), *named, *small, *options]
        done = subprocess.run(
            [sys.executable, "-c", f"{breaking}\n{RUN}", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        document = read_last_json(done)
        assert document["exit"] == done.returncode, done.stderr
        assert not job.output.exists()
        return done.returncode, document, done.stderr

    return sweep


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        "driver killed after",
        # Nearly the same: before a call is after the one in front of it.
        pytest.param("driver killed before", marks=pytest.mark.all_only),
    ],
)
def test_the_driver_may_be_killed_at_every_call(sweep, fault):
    """All points of a first run and of runs that go on: every promise holds."""
    code, document, stderr = sweep(fault)
    assert (code, document["violations"], document["void"]) == (0, [], []), stderr
    points = document["points"]
    assert min(points.values()) > 0
    num_points = sum(points.values())
    held = dict.fromkeys(("trials", *map(str, Promise)), num_points)
    assert document["faults"][fault] == held
    assert f"{points['store']} store calls" in stderr


@pytest.mark.slow
def test_listings_may_be_stale_writes_torn_and_creations_denied(sweep):
    """Wherever a run lists, writes or creates something."""
    faults = ["stale listing", "empty listing", "torn write", "reply lost, asked again"]
    code, document, stderr = sweep(*faults)
    assert (code, document["violations"], document["void"]) == (0, [], []), stderr
    assert list(document["faults"]) == faults
    assert min(held["trials"] for held in document["faults"].values()) > 0


@pytest.mark.slow
@pytest.mark.all_only
def test_the_whole_sweep_finds_nothing(sweep):
    """Every fault at every point it can happen to."""
    code, document, stderr = sweep()
    assert (code, document["violations"], document["void"]) == (0, [], []), stderr
    assert list(document["faults"]) == [str(fault) for fault in Fault]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.all_only
def test_through_ray_the_promises_hold_too(sweep):
    """Each fault twice: driver, actor and session killed, the store away, its reply lost."""
    code, document, stderr = sweep("503 @ 1", options=["--ray-sample", "10", "--only", "Ray"])
    assert (code, document["violations"], document["void"]) == (0, [], []), stderr
    assert document["trials"] == 11


OVERWRITING = """
from rdu_batch.storage.local_store import LocalStore
create_once = LocalStore.create_once
def overwrite(store, name, content):
    if "/_run/commits/" in store.join(name):
        store.put_whole(name, content)
        return True
    return create_once(store, name, content)
LocalStore.create_once = overwrite
"""
UNPUBLISHED = """
import rdu_batch.runner.resume as resume
resume.publish = lambda store, record, plan: None
"""
VARYING = """
import os
import rdu_batch.runner.manifest as manifest
lines = manifest._manifest_lines
def varied(*arguments):
    yield from lines(*arguments)
    yield b" " * (os.getpid() % 1000) + b"\\n"
manifest._manifest_lines = varied
"""
FORGETFUL = """
import os
import rdu_batch.runner.run_job as run_job
from rdu_batch.errors import StoreError
look_back = run_job.look_back
def refuse(store, plan):
    if os.path.isdir(f"{store.url}/_run/segments"):
        raise StoreError("somebody was here before")
    return look_back(store, plan)
run_job.look_back = refuse
"""
LYING = """
from rdu_batch.errors import StoreError
StoreError.exit_code = 1
"""
CARELESS = """
import rdu_batch.runner.run_job as run_job
run_job.read_success = lambda store: None
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breaking", "fault", "promise", "place"),
    [
        (OVERWRITING, "worker killed after", "commits", "create_once _run/commits/"),
        pytest.param(
            *(UNPUBLISHED, "torn write", "bytes", "copy part-"), marks=pytest.mark.all_only
        ),
        pytest.param(
            *(VARYING, "stale listing", "bytes", "list_objects"), marks=pytest.mark.all_only
        ),
        pytest.param(
            *(FORGETFUL, "torn write", "resume", "copy part-"), marks=pytest.mark.all_only
        ),
        pytest.param(*(LYING, "reply lost", "exit", "_run/segments"), marks=pytest.mark.all_only),
    ],
    ids=["commit records overwrite", "unpublished", "varying", "no resume", "wrong code"],
)
def test_a_sweep_finds_what_is_broken(sweep, breaking, fault, promise, place):
    """Exit 7, with the promise, the place, and how to repeat it; the label repeats it alone."""
    code, document, stderr = sweep(fault, breaking=breaking)
    assert code == 7, stderr
    broken = [one for one in document["violations"] if promise in one["broken"]]
    assert any(place in one["place"] for one in broken), stderr
    label = document["violations"][0]["trial"]
    assert f"--only '{label}'" in stderr
    code, alone, _ = sweep(label, breaking=breaking)
    assert (code, alone["trials"], len(alone["violations"])) == (7, 1, 1)
    assert sweep(label)[0] == 0


def test_a_product_that_breaks_a_promise_undisturbed_is_not_compared_with(sweep):
    """Exit 7 at once: a finished job runs again."""
    code, document, _ = sweep(breaking=CARELESS)
    assert (code, document["error"]) == (7, "VerifyFailed")
    assert "resume: one more run of the finished job" in document["message"]


def test_a_fault_that_is_not_met_is_no_proof(sweep):
    """A point that the run does not come by any more: exit 7, and it is said."""
    elsewhere = "import rdu_batch.runner.chaos_points as c; c.re.escape = lambda text: 'nowhere'"
    code, document, stderr = sweep("503 @ 1", breaking=elsewhere)
    assert (code, document["void"]) == (7, ["503 @ 1"])
    assert "VOID    503 @ 1" in stderr


def test_a_run_that_hangs_is_a_violation(sweep):
    """It is killed after its time, and what it left is gone on from."""
    hanging = """
import time
import rdu_batch.runner.run_job as run_job
write = run_job.write_result
def hang(store, epoch, result):
    return time.sleep(3600) if result["exit"] else write(store, epoch, result)
run_job.write_result = hang
"""
    options = ["--run-timeout", "5", "--rows", "2"]
    code, document, stderr = sweep("503 @ 20", breaking=hanging, options=options)
    assert code == 7, stderr
    assert list(document["violations"][0]["broken"]) == ["exit"]
    assert "did not end within 5 s" in document["violations"][0]["broken"]["exit"]


def test_writes_are_those_requests_that_make_an_object():
    """Whatever else a store can do makes none."""
    assert set(WRITES) == {"put_whole", "put_file", "copy", "create_once"}


def test_a_trial_is_labelled_as_only_takes_it():
    """The same text in the matrix, in the JSON line and on the command line."""
    point = points_of([call("read")])[0]
    assert Trial(Fault.UNAVAILABLE, point).label == Verdict("503", 1, "").label == "503 @ 1"
    assert json.dumps(str(Fault.UNAVAILABLE)) == '"503"'
