"""Jobs submitted to a real Ray cluster of three nodes, and what may be killed meanwhile.

``make test-cluster`` runs these alone: much happens in them at moments, on a machine for itself.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import yaml

from tests.runner.prometheus import alerts, program, run_prometheus, until_answered

pytestmark = [
    *(pytest.mark.ray, pytest.mark.slow, pytest.mark.all_only),
    pytest.mark.xdist_group("three_nodes"),
]

DAYS = ("2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23")
#: How long a row of each day takes: as long as must be left when something is killed or stopped.
ROW_S = (0.1, 0.001, 0.02, 0.12)
#: Small: three nodes share a machine.
STORE_BYTES = 80 << 20
OBSERVABILITY = Path(__file__).parents[2] / "deploy" / "observability"
#: A counter has no sample before its first: the tests' rows have no dead letter.
DEAD_ROWS = "ray_rdu_batch_dead_rows_total"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def node_options():
    """Ports of its own: another Ray on this machine, of another test, has Ray's usual ones."""
    return {
        "object_store_memory": STORE_BYTES,
        "dashboard_agent_listen_port": free_port(),
    }


class ThreeNodes:
    """A head without workers and two nodes of one worker each."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        port, metrics_port = free_port(), free_port()
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port}
        head["metrics_export_port"] = metrics_port
        self._cluster = Cluster(initialize_head=True, head_node_args={**head, **node_options()})
        self.nodes = [self.add_node(), self.add_node()]
        self.url = f"http://127.0.0.1:{port}"
        #: Of the head, where drivers run.
        self.metrics_url = (
            f"http://{self._cluster.head_node.node_ip_address}:{metrics_port}/metrics"
        )

    def add_node(self):
        return self._cluster.add_node(num_cpus=1, **node_options())

    def kill_node(self, node):
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self):
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster():
    """One for all tests here; its drivers beat faster than in production."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    patch.setenv("RDU_BATCH_HEARTBEAT_S", "0.25")
    patch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "20")
    patch.setenv("RAY_metrics_report_interval_ms", "300")
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        patch.delenv(name, raising=False)
    nodes = ThreeNodes()
    yield nodes
    nodes.close()
    patch.undo()


@pytest.fixture
def daily(job, make_lines, cluster):
    """One job file for every day, its input a relative path, as a person writes it."""
    for index, (day, row_s) in enumerate(zip(DAYS, ROW_S, strict=True)):
        text = f'"text": "[[fake:sleep {row_s}]]{day} '.encode()
        lines = [line.replace(b'"text": "', text) for line in make_lines(120 + index)]
        (job.folder / "in" / day).mkdir(parents=True)
        rows = b"".join(line + b"\n" for line in lines)
        (job.folder / "in" / day / "rows.jsonl").write_bytes(rows)
    job.write(
        [],
        name="daily",
        input={"urls": ["in/{date}/*.jsonl"], "id_field": "id"},
        output={"url": "out/{date}", "rows_per_shard": 7},
        workers={"cpus": 1},
    )
    return Daily(job, cluster)


class Daily:
    """The verbs, in processes of their own."""

    def __init__(self, job, cluster):
        self.job, self.cluster = job, cluster
        # Ids are of a cluster; this one is shared by the tests.
        self.name = f"daily-{os.getpid()}-{id(self):x}"[-40:].replace("_", "-")

    def start(self, verb, *arguments):
        command = self.job.command(verb, *arguments, "--address", self.cluster.url)
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.job.folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def submit(self, day, *arguments):
        named = ("--set", f"name={self.name}")
        return self.start("submit", self.job.path, "--date", day, *named, *arguments)

    def run_here(self, verb, day, *more):
        """A verb of the same job in one process without Ray: its exit code and last line."""
        target = [self.out(day)] if verb == "retry-dead" else []
        how = () if verb == "plan" else ("--executor", "inline")
        named = ("--date", day, "--set", f"name={self.name}")
        done = subprocess.run(
            self.job.command(verb, *target, self.job.path, *named, *how, *more),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.job.folder,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    def end(self, process, timeout_s=120):
        """Exit code, last JSON line, standard error."""
        stdout, stderr = process.communicate(timeout=timeout_s)
        assert stdout, stderr
        told = json.loads(stdout.splitlines()[-1])
        assert told["exit"] == process.returncode, stderr
        return process.returncode, told, stderr

    def id_of(self, day, attempt=1):
        return f"{self.name}-{day}-{attempt}"

    def out(self, day):
        return self.job.folder / "out" / day

    def until(self, day, pattern):
        """Wait until the output of a day holds such an object."""
        deadline_s = time.monotonic() + 60
        while not (found := sorted(self.out(day).glob(pattern))):
            assert time.monotonic() < deadline_s, f"no {pattern} within a minute"
            time.sleep(0.01)
        return found

    def parts(self, day):
        return {path.name: path.read_bytes() for path in self.out(day).glob("part-*")}

    def undisturbed(self, day, into):
        """The parts of the same rows by one process without Ray."""
        command = self.job.command("run", self.job.path, "--date", day, "--executor", "inline")
        subprocess.run(
            [*command, "--set", f"output.url={into}"],
            check=True,
            capture_output=True,
            cwd=self.job.folder,
        )
        return {path.name: path.read_bytes() for path in into.glob("part-*")}


def names_in(expression):
    return set(re.findall(r"\bray_rdu_batch_\w+", expression))


def dashboard_expressions(job_name):
    dashboard = json.loads((OBSERVABILITY / "grafana.json").read_text())
    told = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [one.replace("$job", job_name) for one in told]


def alert_expressions():
    rules = yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"][0]["rules"]
    return [rule["expr"] for rule in rules]


def check_metrics(cluster, job_name):
    """What Prometheus would scrape of the head has every number that ``deploy/`` speaks of."""
    expressions = dashboard_expressions(job_name) + alert_expressions()
    assert all(names_in(expression) for expression in expressions)
    wanted = set().union(*map(names_in, expressions)) - {DEAD_ROWS}
    found = set()
    deadline_s = time.monotonic() + 30
    while not wanted <= found:
        assert time.monotonic() < deadline_s, wanted - found
        text = requests.get(cluster.metrics_url, timeout=10).text
        found = {
            line.partition("{")[0]
            for line in text.splitlines()
            if line.startswith("ray_rdu_batch_") and f'job_name="{job_name}"' in line
        }
        time.sleep(0.2)


def test_a_killed_submitter_and_a_killed_node_change_nothing_and_wait_tells_how_it_ended(
    daily, cluster, tmp_path
):
    """The submission is the cluster's; whoever waits gets its result, on the next day another's."""
    first, second, _, _ = DAYS
    submitter = daily.submit(first)
    daily.until(first, "_run/commits/*")
    submitter.kill()
    submitter.communicate()
    check_metrics(cluster, daily.name)
    cluster.kill_node(cluster.nodes.pop())
    code, told, stderr = daily.end(daily.start("wait", daily.id_of(first), "--timeout", "0.1"))
    assert (code, told["error"]) == (11, "WaitEnded"), stderr
    code, told, stderr = daily.end(daily.start("wait", daily.id_of(first)))
    assert (code, told["state"], told["rows"]) == (0, "complete", 120), stderr
    assert told["submission_id"] == daily.id_of(first)
    assert told["workers_lost"] >= 1  # A replacement may have begun on the dying node.
    assert daily.parts(first) == daily.undisturbed(first, tmp_path / "calm")
    cluster.nodes.append(cluster.add_node())

    # So do the verbs without a cluster, of the same job file, whose inputs were copied.
    for verb, more in (("run", ()), ("retry-dead", ("--into", tmp_path / "again"))):
        code, told = daily.run_here(verb, first, *more)
        assert (code, told["rows"], told["state"].split()[-1]) == (0, 120, "complete")
    assert not daily.run_here("plan", first)[1]["differences"]

    # The same day again finds it; the next day is a submission, and a result, of its own.
    code, told, stderr = daily.end(daily.submit(first))
    assert (code, told["submission_id"], told["rows"]) == (0, daily.id_of(first), 120), stderr
    code, told, stderr = daily.end(daily.submit(second))
    assert (code, told["submission_id"], told["rows"]) == (0, daily.id_of(second), 121), stderr
    assert daily.parts(second).keys() == {f"part-{n:05d}-of-00018.jsonl" for n in range(18)}

    _, told, _ = daily.end(daily.start("status", daily.id_of(second)))
    assert (told["state"], told["ray_status"], told["rows"]) == ("complete", "SUCCEEDED", 121)
    log, _ = daily.start("logs", daily.id_of(second)).communicate(timeout=60)
    assert "121 rows of 1 file in 18 shards" in log


def test_a_killed_driver_is_submitted_again_and_goes_on(daily, tmp_path):
    """Of the killed one `wait` says 12, though nothing but Ray could report it."""
    day = DAYS[2]
    submitter = daily.submit(day)
    daily.until(day, "_run/commits/*")
    (owner,) = daily.until(day, "_run/drivers/000001.json")
    os.kill(json.loads(owner.read_bytes())["pid"], signal.SIGKILL)
    code, told, stderr = daily.end(submitter)
    assert (code, told["state"], told["rows"]) == (0, "complete", 122), stderr
    assert (told["submission_id"], told["rows_resumed"] > 0) == (daily.id_of(day, 2), True)
    assert daily.parts(day) == daily.undisturbed(day, tmp_path / "calm")
    code, told, stderr = daily.end(daily.start("wait", daily.id_of(day, 1)))
    assert (code, told["state"]) == (12, "killed"), stderr


@pytest.mark.servers
def test_prometheus_answers_whatever_the_dashboard_asks_while_a_job_runs(daily, cluster, tmp_path):
    """Each panel has a sample of a real scrape; alert rules are rules, and none goes off."""
    day = DAYS[3]
    rules = subprocess.run(
        [program("promtool"), "check", "rules", OBSERVABILITY / "alerts.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (rules.returncode, "3 rules found" in rules.stdout) == (0, True), rules
    with run_prometheus(cluster.metrics_url, tmp_path, OBSERVABILITY / "alerts.yml") as prometheus:
        submitter = daily.submit(day)
        daily.until(day, "_run/commits/*")
        asked = [one for one in dashboard_expressions(daily.name) if DEAD_ROWS not in one]
        until_answered(prometheus, asked, timeout_s=60)
        evaluated = alerts(prometheus)
        code, told, stderr = daily.end(submitter)
    assert (code, told["rows"]) == (0, 123), stderr
    assert len(evaluated) == 3
    assert {health for health, _ in evaluated.values()} == {"ok"}, evaluated
    assert "firing" not in {state for _, state in evaluated.values()}, evaluated


def test_a_stopped_submission_is_never_a_success_and_the_next_one_goes_on(daily):
    """`stop` asks; `wait` says 12; the same submit is a new attempt."""
    day = DAYS[3]
    code, told, stderr = daily.end(daily.submit(day, "--detach"))
    assert (code, told["state"]) == (0, "submitted"), stderr
    daily.until(day, "_run/commits/*")

    other = daily.submit(day, "--detach", "--set", "generation.max_new_tokens=3")
    code, told, stderr = daily.end(other)
    assert (code, told["error"]) == (3, "OutputMismatch"), stderr

    assert daily.end(daily.start("stop", daily.id_of(day)))[1]["stopping"] is True
    code, told, stderr = daily.end(daily.start("wait", daily.id_of(day)))
    assert (code, told["state"]) == (12, "stopped"), stderr
    assert not (daily.out(day) / "_SUCCESS").exists()
    code, told, stderr = daily.end(daily.submit(day))
    assert (code, told["submission_id"]) == (0, daily.id_of(day, 2)), stderr
    assert told["rows"] == 123


def test_a_cluster_that_does_not_answer_is_exit_13(job, make_lines):
    """The message says which address was tried and how to name another."""
    port = free_port()
    job.write(make_lines(3))
    done = subprocess.run(
        job.command("submit", job.path, "--address", f"http://127.0.0.1:{port}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 13
    assert f"127.0.0.1:{port} does not answer" in done.stderr
    assert "Traceback" not in done.stderr
