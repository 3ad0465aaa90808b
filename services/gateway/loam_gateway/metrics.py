"""What Prometheus sees of the gateway. One registry a process, made at start-up."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_REFUSALS = {401: "auth", 402: "budget", 403: "auth", 413: "size", 429: "rate"}
_EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")

__all__ = ["CONTENT_TYPE_LATEST", "CountAnswers", "Metrics"]


class Metrics:
    """Counters and histograms. Labels are names of the platform's own objects, never what a caller sent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_calls()
        self._of_callers()
        self._of_alerts()
        self._of_the_cache()
        self._of_the_ledger()

    def _of_calls(self) -> None:
        self.requests = Counter(
            "loam_requests", "Answers, by route and status.", ("listener", "route", "status"), registry=self.registry
        )
        self.own_seconds = Histogram(
            "loam_gateway_seconds",
            "Time that a metered call spent in the gateway, without the provider's.",
            ("operation",),
            buckets=_FAST,
            registry=self.registry,
        )
        self.provider_seconds = Histogram(
            "loam_provider_seconds",
            "Time until the provider's whole answer, or until a stream's first event.",
            ("model", "region"),
            buckets=_FAST,
            registry=self.registry,
        )
        self.provider_failures = Counter(
            "loam_provider_failures", "Failed calls of a provider.", ("model", "region", "kind"), registry=self.registry
        )
        self.breakers = Gauge(
            "loam_breaker_state",
            "Circuit to a model in a region: 0 closed, 1 half-open, 2 open.",
            ("model", "region"),
            registry=self.registry,
        )
        self.cost_usd = Counter(
            "loam_cost_usd", "Posted cost; the ledger has it exactly.", ("tenant", "model"), registry=self.registry
        )
        self.tokens = Counter("loam_tokens", "Tokens used.", ("tenant", "model", "kind"), registry=self.registry)
        self.cut = Counter(
            "loam_cut_calls", "Calls settled by a bound, because they were cut.", ("model",), registry=self.registry
        )

    def _of_callers(self) -> None:
        self.limits_open = Counter(
            "loam_rate_limits_failed_open",
            "Requests that were let through because Redis did not answer.",
            registry=self.registry,
        )
        self.refusals = Counter(
            "loam_refusals",
            "Callers' requests that were refused: budget, rate, auth (no good key, or not for this) or size.",
            ("reason",),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "loam_requests_waiting", "Requests that wait for their tenant's turn.", registry=self.registry
        )
        self.streaming = Gauge("loam_streams_open", "Answers that are being streamed.", registry=self.registry)
        self.websockets = Gauge("loam_websockets", "Open WebSocket connections.", registry=self.registry)
        self.streams = Gauge("loam_resumable_streams", "Resumable streams under way here.", registry=self.registry)
        self.streams_open = Counter(
            "loam_streams_failed_open",
            "Streams that could not be made resumable because Redis did not answer.",
            registry=self.registry,
        )

    def _of_alerts(self) -> None:
        self.alerts_raised = Counter(
            "loam_budget_alerts", "Percentages of caps that were passed.", registry=self.registry
        )
        self.alert_messages = Counter(
            "loam_alert_messages",
            "Attempts to send an alert, by how they ended: sent, failed, given_up.",
            ("channel", "outcome"),
            registry=self.registry,
        )

    def _of_the_cache(self) -> None:
        self.cache_lookups = Counter(
            "loam_cache_lookups",
            "Completions that the cache had (hit) or not (miss).",
            ("result",),
            registry=self.registry,
        )
        self.cache_waits = Counter(
            "loam_cache_waits", "Completions that waited for an equal one under way.", registry=self.registry
        )
        self.cache_saved_usd = Counter(
            "loam_cache_saved_usd",
            "What hits once cost; the ledger has it exactly.",
            ("tenant", "model"),
            registry=self.registry,
        )
        self.cache_open = Counter(
            "loam_cache_failed_open", "Lookups that were left out because Redis did not answer.", registry=self.registry
        )

    def _of_the_ledger(self) -> None:
        self.holds = Gauge("loam_holds_open", "Calls of this gateway with money held for them.", registry=self.registry)
        self.ledger_batch = Histogram(
            "loam_ledger_batch_tickets",
            "Holds, settlements and renewals that went through the ledger in one transaction.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=self.registry,
        )
        self.ledger_queue = Gauge(
            "loam_ledger_queue_tickets", "Tickets that wait for the next batch.", registry=self.registry
        )

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def answered(self, listener: str, route: str, status: int) -> None:
        """Count an answer."""
        self.requests.labels(listener, route, str(status)).inc()
        if listener == "public" and (reason := _REFUSALS.get(status)):
            self.refusals.labels(reason).inc()

    def under_way(self, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[object]:
        """For the time in which an answer with these headers is sent: a stream counts as open."""
        return self.streaming.track_inprogress() if _EVENT_STREAM in headers else nullcontext()


class CountAnswers:
    """Counts a listener's answers by route and status; a path that no route has is counted without its name."""

    def __init__(self, app: ASGIApp, metrics: Metrics, listener: str) -> None:
        self._app = app
        self._metrics = metrics
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        streaming = False

        async def counted(message: Message) -> None:
            nonlocal streaming
            if message["type"] == "http.response.start":
                self._count(scope, message["status"])
                if not streaming and _EVENT_STREAM in message.get("headers", ()):
                    streaming = True
                    self._metrics.streaming.inc()
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            if streaming:
                self._metrics.streaming.dec()

    def _count(self, scope: Scope, status: int) -> None:
        self._metrics.answered(self._listener, getattr(scope.get("route"), "path", "none"), status)
