"""A cluster that is not there yet, and what will never be one."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rdu_batch.errors import ClusterError
from rdu_batch.runner.ray_jobs import ClusterRefuses, RayJobs
from rdu_batch.runner.reaching import reach


class Clock:
    """Time that passes by sleeping."""

    def __init__(self):
        self.now_s = 0.0

    def sleep(self, seconds):
        self.now_s += seconds


def reached(answers, patience_s):
    """What ``reach`` gives back of a cluster that answers so, one after the other."""
    clock, told, left = Clock(), [], list(answers)

    def open_jobs():
        answer = left.pop(0) if left else ClusterError("still silent")
        if isinstance(answer, Exception):
            raise answer
        return answer

    jobs = reach(
        open_jobs, patience_s, tell=told.append, now_s=lambda: clock.now_s, sleep=clock.sleep
    )
    return jobs, told, clock.now_s


def test_a_cluster_that_comes_in_time_is_reached_and_the_wait_is_said_once():
    """Whoever looks at the log knows what it waits for."""
    silent = ClusterError("Ray at x does not answer")
    jobs, told, took_s = reached([silent, silent, silent, "jobs"], patience_s=60)
    assert jobs == "jobs"
    assert told == ["Ray at x does not answer; trying for 60 s"]
    assert took_s >= 3


@pytest.mark.parametrize("patience_s", [0, 30])
def test_a_cluster_that_never_comes_is_exit_13_after_that_time(patience_s):
    """At once where nobody asked for patience."""
    with pytest.raises(ClusterError, match="still silent") as caught:
        reached([], patience_s)
    assert caught.value.exit_code == 13


def test_what_refuses_is_not_asked_again():
    """A wrong token is wrong tomorrow, too."""
    with pytest.raises(ClusterRefuses):
        reached([ClusterRefuses("a wrong token"), "jobs"], patience_s=60)


@pytest.fixture
def site():
    """Starts a web server that is no cluster; gives its URL."""
    servers = []

    def start(status, content):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (404, b"not here", "no Jobs API"),
        (200, b"<html>hello</html>", "not as Ray's dashboard does"),
        (401, b"Unauthorized: Missing authentication token", "RAY_AUTH_TOKEN"),
        (403, b"Forbidden: Invalid authentication token", "RAY_AUTH_TOKEN"),
    ],
)
def test_another_server_than_rays_refuses_with_what_it_is(
    site, monkeypatch, tmp_path, status, content, words
):
    """The message says which, and what to name instead; nothing of it is tried again."""
    monkeypatch.setenv("HOME", str(tmp_path))
    url = site(status, content)
    with pytest.raises(ClusterRefuses, match=words) as caught:
        RayJobs(url)
    assert url in str(caught.value)


def test_nothing_at_an_address_is_no_refusal():
    """A head that is being replaced looks like this."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ClusterError, match="does not answer") as caught:
        RayJobs(f"http://127.0.0.1:{port}")
    assert not isinstance(caught.value, ClusterRefuses)
