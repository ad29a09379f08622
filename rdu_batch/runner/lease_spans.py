"""Optional OpenTelemetry spans: one a run, and below it one for each lease that a worker ended.

They are made where the standard's variables name a collector, ``OTEL_EXPORTER_OTLP_ENDPOINT`` or
``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``, and ``OTEL_SDK_DISABLED`` is not ``true``; all other such
variables mean what the standard says. Needs the extra ``otel``. A collector that is away costs
spans and one line, never the job, and of its time what ``close`` is given. Does not: put text of a
row into a span.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from rdu_batch.report.metrics import EndedLease
from rdu_batch.report.progress import Snapshot

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NS_PER_S: Final = 1_000_000_000


def open_lease_spans(
    job_name: str,
    environ: Mapping[str, str],
    say: Callable[[str], object],
) -> LeaseSpans | None:
    """Spans of a run if the environment names a collector; ``say`` is told what they lack."""
    named = next((one for one in _ENDPOINTS if environ.get(one)), None)
    if named is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        say(f"no spans, though {named} is set: pip install 'rdu_batch[otel]'")
        return None
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from rdu_batch.runner.quiet_exporter import QuietExporter

    service = {} if "OTEL_SERVICE_NAME" in environ else {"service.name": "rdu_batch"}
    provider = TracerProvider(resource=Resource.create(service), shutdown_on_exit=False)
    exporter = QuietExporter(OTLPSpanExporter())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return LeaseSpans(
        provider,
        {"rdu_batch.job_name": job_name},
        lost=lambda: exporter.num_lost,
        say=lambda did: say(
            f"spans are lost, and nothing else: the collector that {named} names {did}"
        ),
    )


class LeaseSpans:
    """A ``MetricsSink`` that makes spans; to be closed at the end of the run."""

    def __init__(
        self,
        provider: Any,
        attributes: Mapping[str, str],
        now_ns: Callable[[], int] = time.time_ns,
        *,
        lost: Callable[[], int] = lambda: 0,
        say: Callable[[str], object] = lambda _did: None,
    ) -> None:
        """Begin the run's span with these attributes.

        Args:
            provider: makes the spans and hands them over.
            attributes: of the run's span.
            now_ns: nanoseconds since 1970.
            lost: how many spans no collector took, so far.
            say: told what the collector did in place of taking spans, once.
        """
        from opentelemetry.trace import set_span_in_context

        self._provider, self._now_ns = provider, now_ns
        self._lost, self._say = lost, say
        self._tracer = provider.get_tracer("rdu_batch")
        self._run = self._tracer.start_span(
            "rdu_batch.run", attributes=dict(attributes), start_time=now_ns()
        )
        self._context = set_span_in_context(self._run)

    def show(self, snapshot: Snapshot) -> None:
        """Nothing: numbers are for metrics."""

    def lease_ended(self, lease: EndedLease) -> None:
        """A span from the lease's beginning, as far as its worker's clock tells, until now."""
        end_ns = self._now_ns()
        span = self._tracer.start_span(
            "rdu_batch.lease",
            context=self._context,
            start_time=end_ns - int(lease.seconds * _NS_PER_S),
            attributes={
                "rdu_batch.worker_id": lease.worker_id,
                "rdu_batch.shard": lease.shard,
                "rdu_batch.first_row": lease.first_row,
                "rdu_batch.end_row": lease.end_row,
                "rdu_batch.dead": lease.dead,
                "rdu_batch.generated_tokens": lease.generated_tokens,
            },
        )
        span.end(end_ns)

    def close(self, error: BaseException | None, patience_s: float) -> None:
        """End the run's span, as an error if one is given, and hand over what is left.

        Args:
            error: what ended the run.
            patience_s: how long to wait for the collector; it is given the rest of the spans for
                as long as this process lives.
        """
        from opentelemetry.trace import Status, StatusCode

        if error is not None:
            # Its message may quote a row.
            self._run.set_status(Status(StatusCode.ERROR, type(error).__name__))
        self._run.end(self._now_ns())
        # In a thread: force_flush and shutdown of the SDK wait for as long as the exporter tries.
        handing_over = threading.Thread(
            target=self._provider.shutdown, name="last-spans", daemon=True
        )
        handing_over.start()
        handing_over.join(patience_s)
        num_lost = self._lost()
        if num_lost:
            self._say(f"did not take {num_lost:,} of them")
        elif handing_over.is_alive() and patience_s:
            self._say(f"did not answer within {patience_s:g} s")
