"""Spans of a run, as a collector gets them over the wire."""

import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rdu_batch.runner.lease_spans import open_lease_spans


@contextmanager
def collector():
    """Its address, and every span that it was sent."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
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
        yield f"http://127.0.0.1:{server.server_port}", spans
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
    with collector() as (url, spans):
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


def test_a_collector_that_is_away_costs_spans_only(run):
    """The job ends as it would, and within seconds."""
    done = run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


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
