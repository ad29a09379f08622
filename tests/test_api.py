"""``rdu_batch.run`` and its neighbours, as a notebook or a task of a scheduler calls them."""

import datetime as dt
import doctest
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import rdu_batch
from rdu_batch import api
from rdu_batch.errors import Interrupted, SpecError, UsageError
from rdu_batch.runner.executor_choice import open_executor


@pytest.fixture
def make_job(tmp_path):
    """A job over real rows, as a mapping and as the job file of the same words."""

    def make(texts, **sections):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / "rows.jsonl").write_text(rows)
        job = {
            "version": 1,
            "name": "from-python",
            "input": {"urls": [str(tmp_path / "rows.jsonl")]},
            "prompt": {"field": "text"},
            "session": {"kind": "fake"},
            "generation": {"max_new_tokens": 4},
            "output": {"url": str(tmp_path / "out"), "rows_per_shard": 2},
            **sections,
        }
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        return job

    return make


def published(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_examples_of_the_docstrings_hold(tmp_path, monkeypatch):
    """Each is run as it stands, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(api, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
    assert found.attempted >= 15


def test_every_public_name_is_there_and_documented():
    """What ``__all__`` promises can be had, and says what it does."""
    for name in set(rdu_batch.__all__) - {"__version__"}:
        assert getattr(rdu_batch, name).__doc__
        assert name in dir(rdu_batch)
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        _ = rdu_batch.rum


def test_a_run_prints_nothing_and_equals_that_of_the_command_line(make_job, tmp_path, capfd):
    """Same job, same bytes; the summary holds what the command line's last line says."""
    job = make_job(["one", "two", "three"])
    summary = rdu_batch.run(job, executor="inline")
    assert capfd.readouterr() == ("", "")
    command = [sys.executable, "-m", "rdu_batch", "run", str(tmp_path / "job.yaml")]
    other = [*command, "--executor", "inline", "--set", f"output.url={tmp_path / 'other'}"]
    done = subprocess.run(other, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert published(tmp_path / "out") == published(tmp_path / "other")
    assert {"part-00000-of-00002.jsonl", "manifest.json"} <= published(tmp_path / "out").keys()
    varying = {"wall_s", "tokens_per_s", "worker_seconds", "output"}
    ours = summary.to_json()
    assert ours.keys() == told.keys()
    assert {k: v for k, v in ours.items() if k not in varying} == {
        k: v for k, v in told.items() if k not in varying
    }


def test_progress_is_shown_where_it_is_asked_for(make_job, capfd):
    """On standard error, as the command line shows it; standard output stays the caller's."""
    rdu_batch.run(make_job(["one"]), executor="inline", show_progress=True)
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert "plan: 1 row of 1 file in 1 shard" in stderr


def test_a_path_a_mapping_and_a_spec_are_the_same_job(make_job, tmp_path):
    """All go through the same door."""
    job = make_job(["one"])
    path = tmp_path / "job.yaml"
    spec = rdu_batch.load_job(path)
    assert spec == rdu_batch.load_job(str(path)) == rdu_batch.load_job(job)
    assert isinstance(spec, rdu_batch.JobSpec)
    assert rdu_batch.load_job(spec) is spec
    changed = rdu_batch.load_job(job, overrides=["generation.max_new_tokens=9"], limit=1)
    assert (changed.generation.max_new_tokens, changed.input.limit) == (9, 1)
    with pytest.raises(UsageError, match="was read already"):
        rdu_batch.load_job(spec, limit=1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 2, "generation": {"max_new_tokens": "many"}}, "generation.max_new_tokens"),
        ({"session": {"kind": object()}}, "not JSON serializable"),
    ],
    ids=["two mistakes", "what no file can say"],
)
def test_the_mistakes_of_a_mapping_are_one_error(make_job, tmp_path, change, problem):
    """With all of its problems; nothing is written."""
    with pytest.raises(SpecError, match=problem) as caught:
        rdu_batch.run({**make_job(["one"]), **change}, executor="inline")
    assert all(text.startswith("the job:") for text in caught.value.problems)
    assert not (tmp_path / "out").exists()


def test_a_job_file_that_is_not_there_is_an_error_with_its_path(tmp_path):
    """No traceback of Python's own."""
    with pytest.raises(SpecError, match=r"gone\.yaml: the job file cannot be read: No such file"):
        rdu_batch.run(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("job", "arguments", "words"),
    [
        (5, {}, "job is 5, wanted a JobSpec"),
        (None, {}, "job is None"),
        ([], {}, r"job is \[\]"),
        ({}, {"overrides": "limits.deadline_s=1"}, "overrides is 'limits.deadline_s=1', wanted"),
        ({}, {"overrides": [1]}, r"overrides is \[1\]"),
        ({}, {"overrides": None}, "overrides is None"),
        ({}, {"executor": "foo"}, "executor is 'foo', wanted ray or inline"),
        ({}, {"executor": None}, "executor is None"),
        ({}, {"date": 20261122}, "date is 20261122, wanted a day"),
        ({}, {"limit": 0}, "limit is 0, wanted a whole number"),
        ({}, {"limit": "3"}, "limit is '3'"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_a_usage_error(job, arguments, words):
    """Before anything is read, planned or connected to."""
    with pytest.raises(UsageError, match=words):
        rdu_batch.run(job, **arguments)


def test_an_executor_that_there_is_not_opens_nothing():
    """Whoever calls the runner itself is told, too."""
    wanted = dict.fromkeys(("address", "stop", "progress", "is_fenced"))
    with pytest.raises(UsageError, match="executor is 'foo'"), open_executor("foo", None, **wanted):
        pass


@pytest.mark.parametrize(
    "date", ["2026-11-22", dt.date(2026, 11, 22), dt.datetime(2026, 11, 22, 3, tzinfo=dt.UTC)]
)
def test_a_day_is_a_date_or_its_text(make_job, date):
    """A scheduler gives a time: its day counts."""
    job = make_job(["one"], output={"url": "out/{date}"})
    assert rdu_batch.load_job(job, date=date).output.url == "out/2026-11-22"


def test_a_path_in_a_mapping_is_its_text(make_job, tmp_path):
    """Wherever a job file has one."""
    job = make_job(["one"])
    paths = {
        "input": {"urls": [tmp_path / "rows.jsonl"]},
        "output": {**job["output"], "url": tmp_path / "out"},
    }
    assert rdu_batch.load_job({**job, **paths}) == rdu_batch.load_job(job)


def test_a_run_in_another_thread_leaves_signals_alone(make_job, tmp_path):
    """A scheduler's worker calls from threads, where Python refuses handlers."""
    job = make_job(["one", "two"])
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    told = []
    thread = threading.Thread(target=lambda: told.append(rdu_batch.run(job, executor="inline")))
    thread.start()
    thread.join()
    assert [summary.state for summary in told] == ["complete"]
    assert before == {kind: signal.getsignal(kind) for kind in before}
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_the_deadline_holds_in_another_thread(make_job):
    """Without a signal: the run looks for it between rows; what is finished is kept."""
    texts = [f"{n} [[fake:sleep 0.05]]" for n in range(200)]
    job = make_job(texts, limits={"deadline_s": 0.5})
    told = []

    def call():
        try:
            rdu_batch.run(job, executor="inline")
        except Interrupted as error:
            told.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(told) == 1
    assert "limits.deadline_s" in told[0]


def _interrupt_once_there_is(path):
    """Ctrl-C for this process, as soon as a run has come so far."""
    while not path.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_stop_is_an_error_and_signals_are_the_callers_again(make_job, tmp_path):
    """Ctrl-C ends the run, not the notebook; the next one interrupts whatever runs then."""
    job = make_job([f"{n} [[fake:sleep 0.05]]" for n in range(200)])
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    epoch = tmp_path / "out" / "_run" / "drivers" / "000001.json"
    interrupter = threading.Thread(target=_interrupt_once_there_is, args=(epoch,), daemon=True)
    interrupter.start()
    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        rdu_batch.run(job, executor="inline")
    interrupter.join()
    assert before == {kind: signal.getsignal(kind) for kind in before}


def test_open_session_says_what_it_wants():
    """An artifact, or kind fake, and at least one thread."""
    with pytest.raises(UsageError, match="kind='fake'"):
        rdu_batch.open_session()
    with pytest.raises(UsageError, match="threads is 0"):
        rdu_batch.open_session(kind="fake", threads=0)
    with pytest.raises(SpecError, match="did you mean 'fake'"):
        rdu_batch.open_session(kind="fak")
