"""An exporter of spans that counts what it could not hand over, and says nothing.

The exporter of OpenTelemetry logs a line for every try, which in a process without logging of its
own goes to standard error, between lines for people. Lines that another exporter of this process
makes are left alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

_LOGGERS = ("opentelemetry.", "urllib3.")


class QuietExporter(SpanExporter):
    """Hands spans on to an exporter, whose log lines are dropped."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._inside = threading.local()
        #: Spans that the exporter gave up.
        self.num_lost = 0
        # A filter of a logger sees only that logger's own lines, so each gets it.
        self._muted = [
            logging.getLogger(name)
            for name in tuple(logging.root.manager.loggerDict)
            if name.startswith(_LOGGERS)
        ]
        for logger in self._muted:
            logger.addFilter(self._is_another_s)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand them on."""
        self._inside.now = True
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._inside.now = False
            if result is not SpanExportResult.SUCCESS:
                self.num_lost += len(spans)
        return result

    def shutdown(self) -> None:
        """End the exporter, which no batch is on its way to any more."""
        self._exporter.shutdown()
        for logger in self._muted:
            logger.removeFilter(self._is_another_s)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)

    def _is_another_s(self, _record: logging.LogRecord) -> bool:
        return not getattr(self._inside, "now", False)
