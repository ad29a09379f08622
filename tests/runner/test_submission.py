"""What a submission is called, and what it came to by what Ray and the store say."""

import dataclasses
import json
import shlex

import pytest

from rdu_batch.errors import ClusterError, OutputMismatch, WaitEnded
from rdu_batch.job.loading import load_spec
from rdu_batch.runner.epochs import take_epoch, write_result
from rdu_batch.runner.ray_jobs import ClusterBusy, SubmissionExists
from rdu_batch.runner.shipping import shipment_of
from rdu_batch.runner.submission import (
    Ending,
    RayState,
    RayStatus,
    StoreState,
    attempt_of,
    ending_of,
    entrypoint,
    is_submission_id,
    last_attempt,
    message_in,
    submission_id,
    submission_key,
)
from rdu_batch.runner.submitting import OUTPUT, PATIENCE_S, Submitted, submit_job, wait_for
from rdu_batch.storage.store import open_store

NOTHING = StoreState(None, None, is_complete=False)
COMPLETE = StoreState(3, {"exit": 0, "state": "complete"}, is_complete=True)


def ray(status, exit_code=None, message="", output=""):
    return RayState(RayStatus(status), message, exit_code, {OUTPUT: output} if output else {})


def test_ids_of_one_key_count_up_and_ids_of_others_do_not_count():
    """The name of a job may end in a number, and look like another one's date."""
    key = submission_key("nightly", "2026-11-22")
    assert submission_id(key, 2) == "nightly-2026-11-22-2"
    assert attempt_of(key, "nightly-2026-11-22-12") == 12
    assert attempt_of("nightly", "nightly-2026-11-22-12") is None
    assert [attempt_of("a", found) for found in ("a", "a-", "a-0", "a-01", "a-x", "b-1")] == [
        None
    ] * 6
    assert last_attempt("a", ["a-2", "a-10", "a-2-30", "ab-70"]) == 10
    assert last_attempt("a", []) == 0
    assert submission_key("a", None) == "a"


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        ("nightly-2026-11-22-1", True),
        ("a-1", True),
        ("out", False),
        ("out/a-1", False),
        ("s3://bucket/a-1", False),
        ("./a-1", False),
        ("a-0", False),
    ],
)
def test_an_id_is_told_from_an_output(text, is_id):
    """`status` takes either."""
    assert is_submission_id(text) is is_id


def test_the_entrypoint_is_quoted():
    """An interpreter with a space in its path is one word of the shell."""
    assert shlex.split(entrypoint("/opt/my python/bin/python; rm"))[:4] == [
        *("exec", "/opt/my python/bin/python; rm"),
        *("-m", "rdu_batch"),
    ]


@pytest.mark.parametrize(
    ("said", "store", "exit_code", "state"),
    [
        # The store's result counts, whatever Ray says, or whether it says anything.
        (ray("FAILED", 1), COMPLETE, 0, "complete"),
        (ray("STOPPED"), COMPLETE, 0, "complete"),
        (ray("RUNNING"), COMPLETE, 0, "complete"),
        (None, COMPLETE, 0, "complete"),
        (ray("SUCCEEDED", 0), StoreState(1, {"exit": 5, "state": "complete"}, True), 5, "complete"),
        (
            ray("SUCCEEDED", 0),
            StoreState(1, {"exit": 10, "error": "StoppedEarly", "message": "m"}, False),
            *(10, "failed"),
        ),
        (None, StoreState(1, {"exit": 12, "error": "Interrupted"}, False), 12, "stopped"),
        # No result.
        (ray("STOPPED"), NOTHING, 12, "stopped"),
        (ray("STOPPED"), StoreState(1, None, True), 12, "stopped"),
        (ray("SUCCEEDED", 0), NOTHING, 1, "failed"),
        (ray("SUCCEEDED", 0), StoreState(None, None, True), 0, "already complete"),
        (ray("SUCCEEDED", 0), StoreState(1, None, False), 12, "killed"),
        (ray("FAILED", 5), StoreState(None, None, True), 5, "already complete"),
        (ray("FAILED", 5), NOTHING, 1, "failed"),
        (ray("FAILED", 3), NOTHING, 3, "failed"),
        (ray("FAILED", 14), NOTHING, 14, "failed"),
        (ray("FAILED", 127), NOTHING, 1, "failed"),
        (ray("FAILED", -9), NOTHING, 13, "failed"),
        (ray("FAILED"), NOTHING, 13, "failed"),
        (ray("FAILED", -9), StoreState(2, None, False), 12, "killed"),
    ],
)
def test_what_a_submission_came_to(said, store, exit_code, state):
    """Nothing but the store makes a success."""
    ending = ending_of(said, store)
    assert (ending.exit, ending.state) == (exit_code, state)


@pytest.mark.parametrize("said", [None, ray("PENDING"), ray("RUNNING")])
@pytest.mark.parametrize(
    "store", [NOTHING, StoreState(1, None, False), StoreState(None, None, True)]
)
def test_what_has_no_result_and_may_run_has_not_ended(said, store):
    """Not even where the output is complete: this submission did not say so yet."""
    assert ending_of(said, store) is None


def test_the_drivers_words_explain_only_what_ended_with_its_code():
    """A row may print what looks like an ending."""
    log = 'text\n{"exit": 4, "error": "InputError", "message": "no such file"}\n'
    assert message_in(log, 4) == "no such file"
    assert message_in(log, 3) is None
    assert message_in(log + "killed\n", 4) is None
    assert message_in('{"exit": 4}', 4) is None
    assert message_in("4", 4) is None
    assert message_in("", 4) is None


class Cluster:
    """Answers one after the other; an exception is raised. The last one stays."""

    def __init__(self, *answers, log=""):
        self.answers, self.text = list(answers), log

    def state(self, submission_id):
        del submission_id
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def log(self, submission_id):
        del submission_id
        return self.text


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        assert seconds >= 0
        self.now_s += seconds


@pytest.fixture
def waited(tmp_path):
    """``wait_for`` of ``a-1`` with a clock of its own; what it told is kept."""
    clock, told, logged = Clock(), [], []

    def wait(cluster, timeout_s=None, output=str(tmp_path)):
        return wait_for(
            cluster,
            *("a-1", output),
            timeout_s=timeout_s,
            tell=told.append,
            tell_log=logged.append,
            patience_s=60,
            now_s=clock,
            sleep=clock.sleep,
        )

    wait.clock, wait.told, wait.logged = clock, told, logged
    return wait


GONE = ClusterError("Ray does not answer")


def test_a_connection_that_drops_is_tried_again(waited):
    """What was missed of the log is told then, and nothing twice."""
    cluster = Cluster(ray("RUNNING"), GONE, GONE, ray("RUNNING"), ray("FAILED", 4), log="one\ntw")
    ending = waited(cluster)
    assert (ending.exit, waited.logged) == (4, ["one\n"])
    assert len([text for text in waited.told if "does not answer" in text]) == 1
    assert waited.told[-1] == "Ray answers again"


def test_a_cluster_that_is_gone_is_judged_by_the_store(waited, tmp_path):
    """Its result counts; without one the wait fails as soon as its patience is over."""
    with pytest.raises(ClusterError, match="does not answer"):
        waited(Cluster(GONE))
    assert 60 <= waited.clock.now_s < 62
    store = open_store(str(tmp_path))
    take_epoch(store, 1, 1.0, "a-1")
    write_result(store, 1, {"exit": 0, "state": "complete"})
    take_epoch(store, 2, 1.0, "a-2")
    write_result(store, 2, {"exit": 10, "error": "StoppedEarly"})
    assert waited(Cluster(GONE)).exit == 0
    assert waited(Cluster(None)).exit == 0


def test_a_submission_that_ray_does_not_know_and_that_left_no_result_is_exit_13(waited, tmp_path):
    """A cluster that was replaced; a result of another submission is none of this one."""
    store = open_store(str(tmp_path))
    take_epoch(store, 1, 1.0, "a-2")
    write_result(store, 1, {"exit": 0, "state": "complete"})
    with pytest.raises(ClusterError, match=r"no submission a-1.*Submit the job again"):
        waited(Cluster(None))


def test_ray_that_says_running_for_ever_is_not_believed_for_ever(waited, tmp_path):
    """The store is asked now and then; its place is known from Ray alone, too."""
    store = open_store(str(tmp_path))
    take_epoch(store, 1, 1.0, "a-1")
    write_result(store, 1, {"exit": 0, "state": "complete"})
    running = ray("RUNNING", output=str(tmp_path))
    ending = waited(Cluster(running), output=None)
    assert (ending.exit, waited.clock.now_s <= 31) == (0, True)


def test_a_wait_ends_with_exit_11_when_its_time_is_over(waited):
    """And not much later, however short it is."""
    with pytest.raises(WaitEnded, match=r"still runs after 2\.5 s"):
        waited(Cluster(ray("RUNNING")), timeout_s=2.5)
    assert waited.clock.now_s == 2.5
    assert WaitEnded.exit_code == 11


class Submissions:
    """Keeps what is submitted; before that, raises what it is given, one at a time."""

    def __init__(self, *errors):
        self.errors, self.states = list(errors), {}

    def state(self, submission_id):
        return self.states.get(submission_id)

    def ids(self):
        return list(self.states)

    def submit(self, submission_id, job_file, metadata, python):
        del job_file, python
        error = self.errors.pop(0) if self.errors else None
        if isinstance(error, SubmissionExists):
            self.states[submission_id] = RayState(RayStatus.RUNNING, "", None, metadata)
        if error is not None:
            raise error
        assert submission_id not in self.states
        self.states[submission_id] = RayState(RayStatus.RUNNING, "", None, metadata)


@pytest.fixture
def submitted(tmp_path):
    """``submit_job`` of one small job with a clock of its own."""
    clock = Clock()
    text = (
        "version: 1\nname: a\ninput: {urls: ['s3://b/*.jsonl']}\nprompt: {field: text}\n"
        f"session: {{kind: fake}}\noutput: {{url: '{tmp_path}'}}\n"
    )

    def submit(jobs, *overrides):
        spec = load_spec(text, source="job.yaml", overrides=overrides)
        shipment = shipment_of(spec)
        return submit_job(jobs, shipment, "a", python="python", now_s=clock, sleep=clock.sleep)

    submit.clock = clock
    return submit


def test_a_cluster_that_is_too_busy_is_asked_again_for_a_while(submitted):
    """One that has just begun has no agent yet; one that never has is an error in the end."""
    busy = [ClusterBusy("try again later")] * 5
    assert submitted(Submissions(*busy)) == Submitted("a-1", is_new=True)
    assert submitted.clock.now_s == 5
    with pytest.raises(ClusterBusy):
        submitted(Submissions(*busy * 100))
    assert submitted.clock.now_s < 5 + PATIENCE_S + 2


def test_of_two_submitters_the_second_joins(submitted):
    """Ray refuses its id, and what the first submitted is looked at."""
    jobs = Submissions(SubmissionExists("exists"))
    assert submitted(jobs) == Submitted("a-1", is_new=False)
    with pytest.raises(OutputMismatch, match="a-1 is under way with another job file"):
        submitted(jobs, "limits.max_dead_rows=7")


def test_a_request_that_ray_fails_beside_another_is_looked_at(submitted):
    """Of two at the same moment it may answer the second with an error that says nothing."""

    class Racing(Submissions):
        def submit(self, submission_id, job_file, metadata, python):
            super().submit(submission_id, job_file, metadata, python)
            raise ClusterError("refused: HTTP 500: .")

    assert submitted(Racing()) == Submitted("a-1", is_new=False)
    with pytest.raises(ClusterError, match="down"):
        submitted(Submissions(ClusterError("down")))


def test_after_a_try_that_ended_comes_the_next_and_no_id_comes_twice(submitted, tmp_path):
    """Also where Ray has forgotten the tries, and only the output remembers them."""
    jobs = Submissions()
    submitted(jobs)
    jobs.states["a-1"] = dataclasses.replace(jobs.states["a-1"], status=RayStatus.STOPPED)
    assert submitted(jobs) == Submitted("a-2", is_new=True)
    take_epoch(open_store(str(tmp_path)), 1, 1.0, "a-7")
    assert submitted(Submissions()) == Submitted("a-8", is_new=True)


def test_of_what_ray_says_the_log_is_left_out_but_for_its_last_line():
    """The log was shown already; its last line may be all that explains."""
    said = (
        "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 "
        "chars):\nRunning entrypoint\n/usr/bin/python: No module named rdu_batch\n"
    )
    ending = ending_of(RayState(RayStatus.FAILED, said, 1, {}), NOTHING)
    assert ending.message.endswith(
        "Job entrypoint command failed with exit code 1: /usr/bin/python: No module named rdu_batch"
    )
    assert "Running entrypoint" not in ending.message


def test_a_job_that_was_completed_before_is_found_so(submitted, tmp_path):
    """Whoever submits it again learns that nothing was run."""
    jobs = Submissions()
    submitted(jobs)
    take_epoch(open_store(str(tmp_path)), 1, 1.0, "a-1")
    write_result(open_store(str(tmp_path)), 1, {"state": "complete", "exit": 0})
    success = {"version": 1, "manifest_sha256": "0" * 64, "job_digest": "sha256:0"}
    (tmp_path / "_SUCCESS").write_text(json.dumps(success) + "\n")
    jobs.states["a-1"] = dataclasses.replace(jobs.states["a-1"], status=RayStatus.SUCCEEDED)
    assert submitted(jobs) == Submitted("a-1", is_new=False, had_ended=True)


def test_an_ending_keeps_what_was_reported():
    """The result itself is for the JSON line."""
    ending = ending_of(None, COMPLETE)
    assert dataclasses.replace(ending, result=None) == Ending(0, "complete", "")
    assert ending.result == COMPLETE.result
