"""What Prometheus sees of the gateway. One registry a process, made at start-up."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

__all__ = ["CONTENT_TYPE_LATEST", "CountAnswers", "Metrics"]


class Metrics:
    """Counters and histograms. Labels are names of the platform's own objects, never what a caller sent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
        self.limits_open = Counter(
            "loam_rate_limits_failed_open",
            "Requests that were let through because Redis did not answer.",
            registry=self.registry,
        )
        self.alerts_raised = Counter(
            "loam_budget_alerts", "Percentages of caps that were passed.", registry=self.registry
        )
        self.alert_messages = Counter(
            "loam_alert_messages",
            "Attempts to send an alert, by how they ended: sent, failed, given_up.",
            ("channel", "outcome"),
            registry=self.registry,
        )
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

        self.websockets = Gauge("loam_websockets", "Open WebSocket connections.", registry=self.registry)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class CountAnswers:
    """Counts a listener's answers by route and status; a path that no route has is counted without its name."""

    def __init__(self, app: ASGIApp, metrics: Metrics, listener: str) -> None:
        self._app = app
        self._requests = metrics.requests
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                self._requests.labels(self._listener, route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)
