"""What Prometheus sees of the gateway. One registry a process, made at start-up."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]


class Metrics:
    """Counters and histograms. Labels are names of the platform's own objects, never what a caller sent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "loam_requests", "Answers, by route and status.", ("listener", "route", "status"), registry=self.registry
        )
        self.refusals = Counter(
            "loam_refusals", "Requests refused, by code of the error.", ("code",), registry=self.registry
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

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
