"""Spans of a run, as a collector gets them over the wire."""

import logging
import socket
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rdu_batch.runner.lease_spans import LeaseSpans, open_lease_spans
from rdu_batch.runner.sinks import RunSinks


@contextmanager
def collector(look=lambda: None):
    """Its address, every span that it was sent, and what ``look`` saw at each request."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans, looks = [], []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            looks.append(look())
            asked = ExportTraceServiceRequest.FromString(
                self.rfile.read(int(self.headers["Content-Length"]))
            )
            for resource in asked.resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans, looks
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attributes_of(span):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.fixture
def run(job, make_lines):
    """A job of 40 rows in one process, with a broken row, and this environment."""
    lines = [*make_lines(39), b"not a row"]
    job.write(lines, rows_per_shard=10)
    return lambda **env: job.run("--executor", "inline", env=env)


def test_every_lease_is_a_span_below_the_run_s(run):
    """Each row of the job is in exactly one; no text of a row is in any."""
    with collector() as (url, spans, _):
        done = run(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_COMPRESSION="none")
    assert done.returncode == 0, done.stderr
    (top,) = [one for one in spans if one.name == "rdu_batch.run"]
    leases = [one for one in spans if one.name == "rdu_batch.lease"]
    assert len(leases) + 1 == len(spans)
    rows = []
    for one in leases:
        assert (one.trace_id, one.parent_span_id) == (top.trace_id, top.span_id)
        assert top.start_time_unix_nano <= one.end_time_unix_nano <= top.end_time_unix_nano
        assert one.start_time_unix_nano < one.end_time_unix_nano
        told = attributes_of(one)
        rows += range(told["rdu_batch.first_row"], told["rdu_batch.end_row"])
    assert sorted(rows) == list(range(40))
    assert sum(attributes_of(one)["rdu_batch.dead"] for one in leases) == 1
    assert "not a row" not in str(spans)


@contextmanager
def silent_collector():
    """The address of one that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def refused_collector():
    """An address where nobody listens."""
    yield "http://127.0.0.1:1"


@pytest.mark.parametrize("away", [silent_collector, refused_collector])
def test_a_collector_that_is_away_costs_spans_and_one_line(run, away):
    """The exporter tries for ten seconds; the run neither waits for that nor counts it."""
    with away() as url:
        done = run(OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("spans are lost") == 1
    assert "that OTEL_EXPORTER_OTLP_ENDPOINT names did not" in done.stderr
    for raw in ("Traceback", "HTTPConnectionPool", "Transient", "Failed to export"):
        assert raw not in done.stderr


def test_a_run_s_result_stands_before_its_collector_is_waited_for(run, job):
    """So that a slow one is no part of wall_s, and a stop is written in time."""
    result = job.output / "_run" / "results" / "000001.json"
    with collector(result.exists) as (url, spans, looks):
        assert run(OTEL_EXPORTER_OTLP_ENDPOINT=url).returncode == 0
    assert any(one.name == "rdu_batch.run" for one in spans)
    assert looks[-1] is True


@pytest.mark.parametrize(("is_stopped", "waited"), [(True, []), (False, ["did not answer"])])
def test_after_a_stop_nobody_waits_for_a_collector(is_stopped, waited):
    """The end of a provider that never ends is waited for a second, or not at all."""
    from opentelemetry.sdk.trace import TracerProvider

    never, said = threading.Event(), []

    class Endless(TracerProvider):
        def shutdown(self):
            never.wait()

    sinks = RunSinks("job", "inline", said.append, lambda: is_stopped)
    sinks._spans = LeaseSpans(Endless(shutdown_on_exit=False), {}, say=said.append)
    with sinks:
        pass
    never.set()
    assert [one.partition(" within")[0] for one in said] == waited


def test_lines_of_another_exporter_of_the_process_are_left_alone(caplog):
    """Only what our own exporter logs while it exports is dropped, and that is counted."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from rdu_batch.runner.quiet_exporter import QuietExporter

    logger = logging.getLogger("opentelemetry.exporter.of_a_test")

    class Failing(SpanExporter):
        def export(self, spans):
            logger.warning("Transient error of %s", len(spans))
            return SpanExportResult.FAILURE

    quiet = QuietExporter(Failing())
    quiet.export([None, None])
    logger.warning("of another")
    assert caplog.messages == ["of another"]
    assert quiet.num_lost == 2
    quiet.shutdown()
    assert logger.filters == []


def test_spans_are_made_only_where_a_collector_is_named(monkeypatch):
    """And where the package for it is missing, that is said."""
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    said = []
    assert open_lease_spans("job", {}, said.append) is None
    assert open_lease_spans("job", {**named, "OTEL_SDK_DISABLED": "True"}, said.append) is None
    assert said == []
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert open_lease_spans("job", named, said.append) is None
    assert "rdu_batch[otel]" in said[0]
