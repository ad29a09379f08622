"""Debian's Prometheus for a test: it scrapes one address, and answers what dashboards ask."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import requests


def program(name):
    """Its path; without it a test is skipped, or fails where everything was to be installed."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is not installed: run `make test-servers`"
        if "CI" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@contextmanager
def run_prometheus(scraped_url, folder, rules):
    """Its own address; twice a second it scrapes the other and evaluates that file's rules."""
    scraped = urlsplit(scraped_url)
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
        f"rule_files: ['{rules}']\n"
        "scrape_configs:\n"
        f"  - {{job_name: ray, metrics_path: {scraped.path}, "
        f"static_configs: [{{targets: ['{scraped.netloc}']}}]}}\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    server = subprocess.Popen(
        [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
    )
    try:
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def ask(url, what, **params):
    reply = requests.get(f"{url}/api/v1/{what}", params=params, timeout=10).json()
    assert reply["status"] == "success", (params, reply)
    return reply["data"]


def answer(url, expression):
    """The samples of an instant query; an expression that is none fails."""
    return ask(url, "query", query=expression)["result"]


def alerts(url):
    """Each alert's name and its (health, state), by the rules' own evaluation.

    An alert that waits out its ``for`` is "pending"; one that would wake somebody is "firing".
    """
    (group,) = ask(url, "rules")["groups"]
    return {rule["name"]: (rule["health"], rule["state"]) for rule in group["rules"]}


def until_answered(url, expressions, timeout_s):
    """Wait until each expression has a sample; whatever is left by then is an error."""
    deadline_s = time.monotonic() + timeout_s
    left = list(expressions)
    while left := [one for one in left if not answer(url, one)]:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.2)
