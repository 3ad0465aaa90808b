"""What a reconcile is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from loam_operator.apply.push import Pushes
from loam_operator.cluster import Cluster
from loam_operator.settings import Platform
from loam_shared.contracts.admin import AlertState, PipelineState, Spend
from loam_shared.errors import ConflictError, LoamError, NotFoundError, UnavailableError


@dataclass
class Reports:
    """What the gateway last said of everybody's spend, alerts and documents, and since when who has had no work."""

    tenants: dict[str, Spend] = field(default_factory=dict)
    alerts: dict[str, AlertState] = field(default_factory=dict)
    pipelines: dict[str, PipelineState] = field(default_factory=dict)
    idle_since: dict[str, datetime] = field(default_factory=dict)

    def idle(self, pipeline: str, now: datetime, *, works: bool) -> timedelta:
        """How long the pipeline has been seen without work; `works` is whether it has some now."""
        if works:
            self.idle_since.pop(pipeline, None)
            return timedelta()
        return now - self.idle_since.setdefault(pipeline, now)


@dataclass(frozen=True)
class Context:
    """Everything outside of the object itself. `clock` gives the present in UTC, in whole seconds.

    `idle_limit` is after how long without work an ingestion worker is stopped.
    """

    cluster: Cluster
    pushes: Pushes
    platform: Platform
    clock: Callable[[], datetime]
    idle_limit: timedelta = timedelta(minutes=5)
    reports: Reports = field(default_factory=Reports)


@dataclass(frozen=True)
class Outcome:
    """When to look again: `after` seconds, or (`retry`) after a pause that grows; else when something changes."""

    after: float | None = None
    retry: bool = False


DONE = Outcome()
RETRY = Outcome(retry=True)


def reason_of(error: LoamError) -> str:
    """The reason, for a condition, that the gateway or the cluster did not take something."""
    if isinstance(error, UnavailableError):
        return "Unavailable"
    if isinstance(error, ConflictError):
        return "Conflict"
    if isinstance(error, NotFoundError):
        return "NotRegistered"
    return "Refused"
