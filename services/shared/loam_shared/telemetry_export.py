"""Where traces go: the part of `telemetry` that is loaded only when they go anywhere."""

import os

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def provider_of(service: str, version: str) -> TracerProvider:
    """What sends spans as OpenTelemetry's environment variables say; `service` is the name where they give none."""
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or service, "service.version": version}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(_WithoutQueries())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class _WithoutQueries(SpanProcessor):
    """Empties ``url.query``, which FastAPI sets: a query string is what the caller wrote."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - their signature
        if span.attributes and "url.query" in span.attributes:
            span.set_attribute("url.query", "")
