"""Traces by OpenTelemetry: off, and free, unless its own environment variables say where they go.

``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``…_TRACES_ENDPOINT``) turns them on; ``OTEL_TRACES_EXPORTER=none`` and
``OTEL_SDK_DISABLED=true`` keep them off. FastAPI makes the span of each request and takes the caller's ``traceparent``
in; what a request does inside are spans below that one. None ever carries what a caller wrote: names, figures and the
class of an error, but no prompt, no answer, no message of an error and no query string.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

Value: TypeAlias = str | bool | int | float | tuple[str, ...] | None
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# Asked every few seconds by probes and scrapers; nobody looks for them among traces.
_UNTRACED = frozenset({"/healthz", "/metrics", "/readyz", "/v1/health"})

_tracer: trace.Tracer | None = None


class Span:
    """One step of a request; without a span of OpenTelemetry nothing happens. Attributes that are None are left out."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span | None) -> None:
        self._span = span

    def set(self, attributes: Mapping[str, Value]) -> None:
        """Say more about the step."""
        if self._span is not None:
            self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def fail(self, reason: str) -> None:
        """Mark the step as failed; `reason` is one of a few words (``error.type``)."""
        if self._span is not None:
            self._span.set_attribute("error.type", reason)
            self._span.set_status(StatusCode.ERROR)

    def child(self, name: str, attributes: Mapping[str, Value] | None = None) -> AbstractContextManager["Span"]:
        """A step within this one, for the time of the context; an exception that leaves it marks it as failed."""
        return _NO_STEP if self._span is None else _ended(self._begun(name, SpanKind.INTERNAL, attributes))

    def calling(self, name: str, attributes: Mapping[str, Value] | None = None) -> AbstractContextManager["Span"]:
        """As `child`, for a step that calls something outside."""
        return _NO_STEP if self._span is None else _ended(self._begun(name, SpanKind.CLIENT, attributes))

    def end(self) -> None:
        """The step is over."""
        if self._span is not None:
            self._span.end()

    def _begun(self, name: str, kind: SpanKind, attributes: Mapping[str, Value] | None) -> "Span":
        assert self._span is not None
        assert _tracer is not None
        span = Span(_tracer.start_span(name, trace.set_span_in_context(self._span), kind))
        span.set(attributes or {})
        return span


NOTHING = Span(None)
_NO_STEP = nullcontext(NOTHING)


@contextmanager
def _ended(span: Span) -> Iterator[Span]:
    try:
        yield span
    except (asyncio.CancelledError, GeneratorExit):
        span.fail("cancelled")
        raise
    except Exception as error:
        # The class of a failure, never its message, which may quote the caller.
        span.fail(getattr(error, "code", type(error).__name__))
        raise
    finally:
        span.end()


def configure(service: str) -> None:
    """Send traces where OpenTelemetry's environment variables say; without any, trace nothing.

    `service` names the process where ``OTEL_SERVICE_NAME`` does not. Log lines name their trace from then on, so
    logging is set up before. What was not sent yet is when the process ends.
    """
    if not _wanted():
        return
    # What sends traces takes a while to load, which nobody without a collector need wait for.
    from loam_shared.telemetry_export import provider_of  # noqa: PLC0415

    global _tracer  # noqa: PLW0603 - as OpenTelemetry's own provider: one for the process
    provider = provider_of(f"loam-{service}", metadata.version("loam"))
    trace.set_tracer_provider(provider)
    _tracer = provider.get_tracer("loam", metadata.version("loam"))
    structlog.configure(processors=[_name_trace, *structlog.get_config()["processors"]])


def on() -> bool:
    """Whether anything is traced."""
    return _tracer is not None


def http_config() -> "TelemetryConfig":
    """How FastAPI traces requests: one span each, and nothing besides; metrics are Prometheus' and logs are ours."""
    return {
        "tracing": on(),
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": _untraced,
    }


def current() -> Span:
    """The span of the request that is being served."""
    return NOTHING if _tracer is None else Span(trace.get_current_span())


def headers() -> dict[str, str]:
    """What tells the next service which request it works for: ``traceparent``, or nothing."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        propagate.inject(carrier)
    return carrier


def _wanted() -> bool:
    environment = os.environ
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    return exporter == "otlp" and any(environment.get(name) for name in _ENDPOINTS)


def _untraced(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("path") in _UNTRACED


def _name_trace(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event
