"""A cluster that wants a token: a real Ray head, and what is found to show to it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdu_batch.errors import ClusterError, UsageError
from rdu_batch.runner.ray_jobs import RayJobs
from rdu_batch.runner.ray_tokens import headers_for_proxy, token_at_hand

TOKEN = "0123456789abcdef" * 4
VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_HEADERS")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home without a token, and no variable of Ray's."""
    for name in (*VARIABLES, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def save_token(path, token=TOKEN):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{token}\n")
    return path


def test_a_token_is_looked_for_where_ray_looks(home, monkeypatch):
    """The variable before the file that is named, that before the home's; none where a mode is."""
    assert token_at_hand() is None
    save_token(home / ".ray" / "auth_token", "of the home")
    assert token_at_hand() == "of the home"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(save_token(home / "named", "of the path")))
    assert token_at_hand() == "of the path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", " of the variable ")
    assert token_at_hand() == "of the variable"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert token_at_hand() is None


def test_headers_are_a_json_object_of_texts_or_an_error_that_hides_them(monkeypatch):
    """They hold secrets."""
    assert headers_for_proxy() == {}
    monkeypatch.setenv("RAY_JOB_HEADERS", '{"Cookie": "session=1"}')
    assert headers_for_proxy() == {"Cookie": "session=1"}
    for wrong in ('{"Cookie": sEcReT}', '{"Cookie": ["sEcReT"]}', '"sEcReT"'):
        monkeypatch.setenv("RAY_JOB_HEADERS", wrong)
        with pytest.raises(UsageError, match="RAY_JOB_HEADERS") as caught:
            headers_for_proxy()
        assert "sEcReT" not in str(caught.value)


@pytest.fixture(scope="module")
def guarded_head(tmp_path_factory):
    """URL of the dashboard of a real head that was started with a token."""
    folder = tmp_path_factory.mktemp("head")
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    port, dashboard, agent = (one.getsockname()[1] for one in sockets)
    for one in sockets:
        one.close()
    head = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *("--num-cpus=1", f"--port={port}", f"--dashboard-port={dashboard}"),
            f"--dashboard-agent-listen-port={agent}",
            f"--object-store-memory={80 << 20}",
        ],
        env={
            **{name: text for name, text in os.environ.items() if name not in VARIABLES},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(save_token(folder / "token")),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + 90
        while True:
            assert head.poll() is None, "the head ended"
            assert time.monotonic() < deadline_s, "no dashboard within 90 s"
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", dashboard)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.all_only
def test_a_cluster_that_wants_a_token_gets_the_one_at_hand(guarded_head, home, monkeypatch):
    """Without any, or with a wrong one, the error says what to do; no mode need be exported."""
    with pytest.raises(ClusterError, match=r"RAY_AUTH_TOKEN.*~/\.ray/auth_token"):
        RayJobs(guarded_head)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    with pytest.raises(ClusterError, match="nvalid") as caught:
        RayJobs(guarded_head)
    assert "f" * 64 not in str(caught.value)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    save_token(home / ".ray" / "auth_token")
    assert RayJobs(guarded_head).ids() == []
