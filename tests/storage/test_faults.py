"""Failpoints: a fault strikes at one call, once; every call is in the journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rdu_batch.errors import ObjectMissing, SessionBroken, StoreError, UsageError, VerifyFailed
from rdu_batch.runner.epochs import write_result
from rdu_batch.runner.manifest import Success, read_success
from rdu_batch.sessions.registry import open_session
from rdu_batch.storage.failpoint import (
    FAULT_VARIABLE,
    STRUCK,
    Act,
    Failpoint,
    Role,
    Strike,
    plain_name,
    read_journal,
)
from rdu_batch.storage.faults import FaultyStore
from rdu_batch.storage.output_store import open_output
from rdu_batch.storage.store import Store, open_store

Arm = Callable[..., Failpoint]


@pytest.fixture
def arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arm:
    """Set the variable; without a strike it only asks for the journal."""

    def arm(
        operation: str = "", name: str = ".*", *, act: Act = Act.FAIL, nth: int = 1
    ) -> Failpoint:
        strike = Strike(Role.DRIVER, operation, name, nth, act) if operation else None
        failpoint = Failpoint(str(tmp_path), str(tmp_path / "marks"), strike)
        monkeypatch.setenv(FAULT_VARIABLE, failpoint.to_json())
        return failpoint

    return arm


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def test_nothing_is_armed_without_the_variable(out, monkeypatch):
    """An output is the plain store, a session the plain session."""
    monkeypatch.delenv(FAULT_VARIABLE, raising=False)
    assert not isinstance(open_output(out), FaultyStore)
    assert type(open_session("fake", None, threads=1)).__name__ == "FakeSession"


def test_what_is_no_failpoint_is_exit_2_and_names_the_variable(out, monkeypatch):
    """Somebody left it set; the message says to unset it."""
    for text in ("1", "{}", '{"folder": "a", "marks": "b", "strike": {"act": "explode"}}'):
        monkeypatch.setenv(FAULT_VARIABLE, text)
        with pytest.raises(UsageError, match=f"{FAULT_VARIABLE}.*unset it"):
            open_output(out)


def test_an_armed_process_says_so(out, arm, capfd):
    """On standard error, with what it will do."""
    arm("read", "_SUCCESS", act=Act.KILL_AFTER)
    open_output(out)
    assert f"{FAULT_VARIABLE} is set: this process will kill after at read _SUCCESS" in (
        capfd.readouterr().err
    )


def test_every_request_of_a_store_is_in_the_journal(out, arm, tmp_path):
    """All that a store can do, so that a sweep over the journal covers each call."""
    arm()
    store = open_output(out)
    (tmp_path / "file").write_bytes(b"file")
    store.put_whole("a", b"one")
    store.put_file("b", str(tmp_path / "file"))
    store.copy("a", "c")
    assert store.create_once("d", b"first")
    assert not store.create_once("d", b"second")
    assert (store.read("a"), store.read_range("b", 1, 3)) == (b"one", b"il")
    assert store.stat("c").size_bytes == 3
    assert len(store.list_objects()) == 4
    store.delete("d")
    assert not store.exists("d")
    calls = read_journal(tmp_path)
    assert {call.operation for call in calls} == Store.__abstractmethods__
    told = [(call.operation, call.name, call.end) for call in calls]
    assert told == [
        *[(operation, name, "done") for operation, name in [("put_whole", "a"), ("put_file", "b")]],
        ("copy", "c", "done"),
        *[("create_once", "d", "done")] * 2,
        *[(operation, name, "done") for operation, name in [("read", "a"), ("read_range", "b")]],
        ("stat", "c", "done"),
        ("list_objects", "", "done"),
        ("delete", "d", "done"),
        ("stat", "d", "missing"),
    ]
    creations = [call for call in calls if call.operation == "create_once"]
    assert [call.told for call in creations] == [True, False]
    assert calls[0].sha256 == calls[2].sha256 == calls[5].sha256 != calls[1].sha256


def test_an_unavailable_store_did_nothing(out, arm):
    """The error is one of a store; the next call is answered."""
    arm("put_whole", "a")
    store = open_output(out)
    with pytest.raises(StoreError, match="503"):
        store.put_whole("a", b"one")
    assert open_store(out).list_names() == []
    store.put_whole("a", b"two")
    assert store.read("a") == b"two"


def test_a_lost_reply_is_an_error_after_the_deed(out, arm, tmp_path):
    """The object is there; the journal knows."""
    arm("create_once", "a", act=Act.LOSE)
    with pytest.raises(StoreError, match="connection was closed"):
        open_output(out).create_once("a", b"one")
    assert open_store(out).read("a") == b"one"
    assert [(call.end, call.told) for call in read_journal(tmp_path)] == [("lost", True)]


def test_a_client_that_asks_again_hears_that_another_was_first(out, arm):
    """Create-or-read sees through it."""
    arm("create_once", act=Act.DENY, nth=2)
    store = open_output(out)
    assert store.create_once("a", b"one")
    assert store.create_or_read("b", b"mine") == b"mine"


def test_a_stale_listing_lacks_what_was_written_last(out, arm):
    """Not what comes last by name."""
    arm("list_objects", "folder", act=Act.HIDE_NEWEST)
    store = open_output(out)
    for name in ("folder/b", "folder/c", "folder/a"):
        store.put_whole(name, b"1")
    assert store.list_names("folder") == ["folder/b", "folder/c"]
    assert len(store.list_names("folder")) == 3


def test_an_empty_listing_lacks_all(out, arm):
    """Once."""
    arm("list_objects", "", act=Act.HIDE_ALL)
    store = open_output(out)
    store.put_whole("a", b"1")
    assert (store.list_names(), store.list_names()) == ([], ["a"])


def test_the_occurrence_is_counted_over_all_who_open_the_output(out, arm, tmp_path):
    """Also over processes, by marks; the fault is met once, and leaves a mark."""
    arm("put_whole", r"_run/sealed/\*", nth=2)
    store = open_output(out)
    store.put_whole("_run/other", b"1")
    store.put_whole(f"_run/sealed/{'a' * 16}", b"1")
    assert not (tmp_path / "marks" / STRUCK).exists()
    with pytest.raises(StoreError):
        store.put_whole(f"_run/sealed/{'b' * 64}", b"1")
    assert (tmp_path / "marks" / STRUCK).read_text() == f"put_whole _run/sealed/{'b' * 64}"
    store.put_whole(f"_run/sealed/{'c' * 16}", b"1")


def test_the_first_to_open_an_output_is_its_driver(out, arm):
    """All others are workers; a fault for the one does not strike the other."""
    arm("read", "a")
    driver, worker = open_output(out), open_output(out)
    with pytest.raises(ObjectMissing):
        worker.read("a")
    with pytest.raises(StoreError, match="503"):
        driver.read("a")


def test_random_parts_of_a_name_are_left_out_numbers_are_not():
    """So that a call is found again in the next run."""
    assert (
        plain_name(f"_run/sealed/00001/part-{'0f' * 8}.jsonl") == "_run/sealed/00001/part-*.jsonl"
    )
    plain = "_run/segments/00002/000000000008-000000000012-e000001-l000003"
    assert plain_name(f"{plain}-{'0' * 64}.seg") == f"{plain}-*.seg"


DIE = """
import sys
from rdu_batch.storage.output_store import open_output
store = open_output(sys.argv[1])
try:
    getattr(store, sys.argv[2])(*[eval(text) for text in sys.argv[3:]])
except Exception as error:
    print("went on after", error)
print("went on")
"""


def die_at(out: str, failpoint: Failpoint, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Make one call in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", DIE, out, *arguments],
        env={**os.environ, FAULT_VARIABLE: failpoint.to_json()},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("act", "is_there"), [(Act.KILL_BEFORE, False), (Act.KILL_AFTER, True)])
def test_a_kill_is_a_real_one_before_or_after_the_call(out, arm, tmp_path, act, is_there):
    """SIGKILL, nothing is tidied up; the journal has the call all the same."""
    done = die_at(out, arm("create_once", "a", act=act), "create_once", "'a'", "b'one'")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert open_store(out).exists("a") is is_there
    assert [call.end for call in read_journal(tmp_path)] == ["done" if is_there else "not done"]


def test_a_kill_after_a_look_that_found_nothing_is_one_too(out, arm):
    """A missing object is an answer like others."""
    done = die_at(out, arm("stat", "a", act=Act.KILL_AFTER), "exists", "'a'")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


@pytest.mark.parametrize("operation", ["put_whole", "put_file", "copy"])
def test_a_torn_write_leaves_half_and_ends_the_process(out, arm, tmp_path, operation):
    """Whatever way the object was to be written."""
    (tmp_path / "file").write_bytes(b"12345678")
    open_store(out).put_whole("source", b"12345678")
    arguments = {
        "put_whole": ["'a'", "b'12345678'"],
        "put_file": ["'a'", repr(str(tmp_path / "file"))],
        "copy": ["'source'", "'a'"],
    }[operation]
    done = die_at(out, arm(operation, "a", act=Act.TEAR), operation, *arguments)
    assert done.returncode == -signal.SIGKILL
    assert open_store(out).read("a") == b"1234"


def test_a_session_is_hurt_at_its_own_calls(arm, tmp_path, monkeypatch):
    """Rows begin with a prefill: the worker is lost there, and its calls are in the journal."""
    strike = Strike(Role.WORKER, "prefill", "session", 2, Act.BREAK_BEFORE)
    failpoint = Failpoint(str(tmp_path), str(tmp_path / "marks"), strike)
    monkeypatch.setenv(FAULT_VARIABLE, failpoint.to_json())
    session = open_session("fake", None, threads=1)
    first = session.prefill([1, 2])
    session.decode(first.token_id, 2)
    with pytest.raises(SessionBroken, match="on purpose"):
        session.prefill([1, 2])
    session.close()
    assert [(call.operation, call.end) for call in read_journal(tmp_path)] == [
        ("prefill", "done"),
        ("decode", "done"),
        ("prefill", "not done"),
    ]


def test_a_failpoint_survives_its_variable():
    """All of it; the strike with its own kinds."""
    strike = Strike(Role.WORKER, "copy", "part-.*", 3, Act.TEAR)
    failpoint = Failpoint("/a", "/b", strike)
    assert Failpoint.from_json(failpoint.to_json()) == failpoint
    assert json.loads(failpoint.to_json())["strike"]["act"] == "tear"


def test_a_report_whose_reply_is_lost_is_no_failure(out, arm):
    """The run has done all there was to do, and its report stands."""
    arm("create_once", "_run/results/.*", act=Act.LOSE)
    store = open_output(out)
    write_result(store, 1, {"exit": 0})
    write_result(store, 1, {"exit": 6})
    found = json.loads(store.read("_run/results/000001.json"))
    assert (found["epoch"], found["exit"]) == (1, 0)


@pytest.mark.parametrize("num_bytes", [0, 1, 40])
def test_the_beginning_of_a_success_is_none(out, num_bytes):
    """As a write leaves it that was cut short; anything else that is not ours is damage."""
    store = open_output(out)
    whole = Success("sha256:0", "0" * 64).to_bytes()
    store.put_whole("_SUCCESS", whole[:num_bytes])
    assert read_success(store) is None
    store.put_whole("_SUCCESS", whole)
    assert read_success(store) == Success("sha256:0", "0" * 64)
    store.put_whole("_SUCCESS", b"done\n")
    with pytest.raises(VerifyFailed, match="damaged"):
        read_success(store)


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.all_only
def test_a_users_own_bucket_can_be_tried(s3_url, tmp_path):
    """The trials' outputs are there while they run; at the end there is nothing."""
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n')
    job = {
        "version": 1,
        "name": "bucket",
        "input": {"urls": [str(tmp_path / "rows.jsonl")]},
        "prompt": {"field": "text"},
        "output": {"url": "s3://nowhere/out"},
        "session": {"kind": "fake"},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    command = [sys.executable, "-m", "rdu_batch", "chaos", str(tmp_path / "job.yaml")]
    options = ["--scratch", s3_url, "--rows", "1", "--only", "stale listing", "--ray-sample", "0"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert (found["violations"], found["void"], found["scratch"]) == ([], [], s3_url)
    assert found["trials"] > 0
    assert open_store(s3_url).list_names("", recursive=True) == []
