"""What is tried again, how often, and what is said and done when it does not pass."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import Interrupted, ObjectMissing, StoreError
from rdu_batch.storage.object_store import open_object_store
from rdu_batch.storage.remote_store import RemoteStore
from rdu_batch.storage.retries import NUM_TRIES, Retries, end_waits_at, is_transient, pause_s, wait
from rdu_batch.storage.store import Store, open_store
from tests.storage.file_site import FileSite, serve_files
from tests.storage.servers import require_packages
from tests.storage.test_runs_on_s3 import rdu_batch, write_job

if TYPE_CHECKING:
    from tests.storage.conftest import Place, ScriptedS3

CONTENT = b"0123456789" * 1000


class Failure(Exception):
    """A driver's error with an HTTP status."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status


@pytest.mark.parametrize(
    "error",
    [
        *(Failure(status) for status in (429, 500, 502, 503, 504)),
        Failure(400, "RequestLimitExceeded"),
        OSError("Please reduce your request rate: SlowDown"),
        OSError("ThrottlingException"),
        OSError("Server is busy"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        BrokenPipeError(),
        TimeoutError(),
        EOFError(),
        OSError(errno.ETIMEDOUT, "timed out"),
        OSError("Socket is closed"),
    ],
    ids=repr,
)
def test_what_may_pass_is_transient(error: Exception) -> None:
    """By itself, and as the cause of a driver's own error."""
    assert is_transient(error)
    wrapped = RuntimeError("the driver failed")
    wrapped.__cause__ = error
    assert is_transient(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        *(Failure(status) for status in (400, 401, 403, 404, 405, 409, 412, 416, 501, 507)),
        Failure(404, "SlowDown is the name of this object"),
        FileNotFoundError(),
        FileExistsError(),
        PermissionError(),
        IsADirectoryError(),
        OSError(errno.ENOSPC, "no space"),
        ValueError("no such option"),
        KeyError("x"),
        StoreError("said already"),
    ],
    ids=repr,
)
def test_what_stays_wrong_is_not_transient(error: Exception) -> None:
    """Asking again would only take longer."""
    assert not is_transient(error)


def test_the_drivers_own_classes_are_known() -> None:
    """Those of a broken connection, by what the libraries raise."""
    aiohttp = pytest.importorskip("aiohttp")
    botocore = pytest.importorskip("botocore.exceptions")
    assert is_transient(aiohttp.ServerDisconnectedError())
    assert is_transient(aiohttp.ClientPayloadError("cut"))
    assert is_transient(botocore.EndpointConnectionError(endpoint_url="http://x"))
    assert is_transient(botocore.ReadTimeoutError(endpoint_url="http://x"))
    assert not is_transient(botocore.NoCredentialsError())


def test_pauses_double_are_spread_and_are_some_15_seconds_in_all() -> None:
    """Between half of it and all of it."""
    shortest = [pause_s(tries, 0.0) for tries in range(1, NUM_TRIES)]
    longest = [pause_s(tries, 0.999999) for tries in range(1, NUM_TRIES)]
    assert shortest == [0.5, 1, 2, 4]
    assert all(low < high <= 2 * low for low, high in zip(shortest, longest, strict=True))
    assert sum(longest) <= 15


def test_a_call_is_repeated_until_it_succeeds() -> None:
    """With a pause between tries, and a new connection before each further one."""
    waited: list[float] = []
    reconnects: list[int] = []
    left = [ConnectionResetError(), TimeoutError()]

    def do() -> str:
        if left:
            raise left.pop()
        return "done"

    got = Retries(wait=waited.append).call(do, before_next=lambda: reconnects.append(1))
    assert (got, len(waited), len(reconnects)) == ("done", 2, 2)


def test_a_failed_reconnection_is_one_more_failed_try() -> None:
    """Not an error of another kind."""
    tries: list[str] = []

    def do() -> str:
        tries.append("do")
        raise ConnectionResetError

    def reconnect() -> None:
        tries.append("reconnect")
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        Retries(wait=lambda _s: None).call(do, before_next=reconnect)
    assert tries == ["do", *["reconnect"] * (NUM_TRIES - 1)]


def test_an_error_that_stays_is_raised_at_once() -> None:
    """Without a note of tries."""
    with pytest.raises(FileNotFoundError) as caught:
        Retries(wait=lambda _s: pytest.fail("waited")).call(lambda: Path("/nowhere/x").stat())
    assert not getattr(caught.value, "__notes__", [])


class Stop:
    """A stop request as ``runner/stops.py`` makes it."""

    def __init__(self) -> None:
        self.is_asked = False

    def is_requested(self) -> bool:
        return self.is_asked

    def check(self) -> None:
        if self.is_asked:
            raise Interrupted("stopped")


@pytest.fixture
def stop() -> Iterator[Stop]:
    """In force during the test."""
    stop = Stop()
    end_waits_at(stop)
    yield stop
    end_waits_at(None)


def test_a_stop_ends_a_wait(stop: Stop) -> None:
    """It would have been an hour."""
    stop.is_asked = True
    with pytest.raises(Interrupted):
        wait(3600)


def test_after_a_stop_nothing_is_tried_again(stop: Stop) -> None:
    """What is still to be written at the end gets one try."""
    stop.is_asked = True
    tries = []

    def do() -> None:
        tries.append(1)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        Retries(wait=lambda _s: pytest.fail("waited")).call(do)
    assert len(tries) == 1


# --- Real servers --------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[FileSite]:
    """An HTTP server of one file."""
    pytest.importorskip("aiohttp")
    with serve_files({"a.jsonl": CONTENT}) as site:
        yield site


def patient(store: Store, waited: list[float]) -> Store:
    """The store, with waits that are noted in place of being slept."""
    assert isinstance(store, RemoteStore)
    store.retries = Retries(wait=waited.append)
    return store


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, "drop", "cut"])
def test_a_read_outlasts_a_server_that_is_away_for_a_while(
    site: FileSite, fault: int | str
) -> None:
    """The bytes are whole, and it was asked as often as it had to be."""
    waited: list[float] = []
    store = patient(open_store(site.url), waited)
    site.script = [fault, fault]
    assert store.read("a.jsonl") == CONTENT
    site.script = [fault, fault]
    assert store.read_range("a.jsonl", 5, 8000) == CONTENT[5:8000]
    assert not site.script
    # The driver itself asks once more on a connection that it kept and found closed.
    assert (len(waited), site.num_gets) == ((2 if fault == "drop" else 4), 6)


@pytest.mark.parametrize("fault", [503, "drop", "cut"])
def test_a_server_that_stays_away_is_given_up_and_the_tries_are_said(
    site: FileSite, fault: int | str
) -> None:
    """The last failure, and how often it was tried."""
    waited: list[float] = []
    store = patient(open_store(site.url), waited)
    site.script = [fault] * 100
    with pytest.raises(StoreError, match=f"tried {NUM_TRIES} times"):
        store.read("a.jsonl")
    asked = 2 * NUM_TRIES if fault == "drop" else NUM_TRIES  # see above
    assert (len(waited), site.num_gets) == (NUM_TRIES - 1, asked)


def test_what_is_missing_or_denied_is_asked_for_once(site: FileSite) -> None:
    """No wait hides a slip in a name."""
    waited: list[float] = []
    store = patient(open_store(site.url), waited)
    with pytest.raises(ObjectMissing):
        store.read("b.jsonl")
    site.script = [403]
    with pytest.raises(StoreError, match="access denied"):
        store.read("a.jsonl")
    assert (waited, site.num_gets) == ([], 1)


@pytest.mark.s3
def test_a_put_on_s3_is_tried_again_by_one_policy_alone(scripted_s3: ScriptedS3) -> None:
    """The driver's own retries are off, or five times five would be asked."""
    waited: list[float] = []
    store = patient(open_store("s3://bucket/out"), waited)
    scripted_s3.script = [(503, "SlowDown"), (500, "InternalError")]
    store.put_whole("x", b"1")
    assert (len(waited), len(scripted_s3.conditions)) == (2, 3)
    scripted_s3.script = [(503, "SlowDown")] * 100
    with pytest.raises(StoreError, match=rf"asks to slow down.*tried {NUM_TRIES} times"):
        store.put_whole("x", b"1")
    assert len(scripted_s3.conditions) == 3 + NUM_TRIES


@pytest.mark.servers
def test_azure_is_asked_by_one_policy_alone() -> None:
    """Its client would wait for minutes, and multiply the tries."""
    require_packages("adlfs")
    with serve_files({"account/container/x": CONTENT}) as site:
        endpoint = f"BlobEndpoint={site.url}/account"
        connection = f"AccountName=account;AccountKey=Zm9v;{endpoint};DefaultEndpointsProtocol=http"
        options = {"connection_string": connection}
        waited: list[float] = []
        store = patient(open_object_store("az://container/", "az", options), waited)
        site.script = [503] * 100
        with pytest.raises(StoreError, match=f"tried {NUM_TRIES} times"):
            store.read("x")
        assert (len(waited), site.num_gets) == (NUM_TRIES - 1, NUM_TRIES)


@pytest.mark.s3
def test_a_creation_whose_reply_is_lost_is_asked_for_again_and_found(
    s3_url: str, s3_faults: Callable[..., Any]
) -> None:
    """The second answer is no; what stands tells that it is ours."""
    store = patient(open_store(s3_url), [])
    for lost_as in ("503 Slow Down", "drop"):
        s3_faults(num_lost=1, lost_as=lost_as)
        assert store.create_or_read(f"x-{lost_as[:3]}", b"mine") == b"mine"


@pytest.mark.servers
def test_a_broken_sftp_connection_is_made_again(place_on: Callable[[str], Place]) -> None:
    """Reads and writes go on."""
    place = place_on("sftp")
    place.use()
    waited: list[float] = []
    store = patient(open_store(place.url), waited)
    store.put_whole("a/x", b"1")
    for attempt in (lambda: store.read("a/x"), lambda: store.put_whole("a/x", b"1")):
        store._filesystem.client.get_transport().sock.close()  # type: ignore[attr-defined]
        attempt()
    assert store.read("a/x") == b"1"
    assert len(waited) == 2
    assert store.list_names("", recursive=True) == ["a/x"]


@pytest.mark.s3
def test_a_signal_during_a_wait_ends_the_run_as_a_stop(
    s3_url: str, s3_faults: Callable[..., Any], tmp_path: Path
) -> None:
    """Exit 12, not the store's 6: the wait did not go on to its end, nor was the store blamed."""
    s3_faults(num_busy=1000)
    job = write_job(tmp_path, f"{s3_url}/out")
    command = [sys.executable, "-m", "rdu_batch", "run", str(job), "--executor", "inline"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while s3_faults(num_busy=1000)["num_busy"] == 1000:
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)  # of asking the server, not of the run
    run.send_signal(signal.SIGTERM)
    out, errors = run.communicate(timeout=60)
    assert (run.returncode, json.loads(out.splitlines()[-1])["exit"]) == (12, 12), errors


@pytest.mark.s3
def test_a_run_outlasts_a_store_that_is_busy_for_a_while(
    s3_url: str, s3_faults: Callable[..., Any], tmp_path: Path
) -> None:
    """A few refusals at its begin, and it ends as any other."""
    s3_faults(num_busy=2)
    job = write_job(tmp_path, f"{s3_url}/out")
    code, summary, errors = rdu_batch("run", job, "--executor", "inline")
    assert (code, summary["rows"], summary["shards"]) == (0, 25, 3), errors
    assert s3_faults()["num_busy"] == 0
