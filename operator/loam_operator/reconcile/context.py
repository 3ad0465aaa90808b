"""What a reconcile is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from loam_operator.apply.push import Pushes
from loam_operator.cluster import Cluster
from loam_operator.settings import Platform
from loam_shared.contracts.admin import AlertState, PipelineState, Spend
from loam_shared.errors import ConflictError, LoamError, NotFoundError, UnavailableError


@dataclass
class Reports:
    """What the gateway last said of everybody's spend, alerts and documents."""

    tenants: dict[str, Spend] = field(default_factory=dict)
    alerts: dict[str, AlertState] = field(default_factory=dict)
    pipelines: dict[str, PipelineState] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """Everything outside of the object itself. `clock` gives the present in UTC, in whole seconds."""

    cluster: Cluster
    pushes: Pushes
    platform: Platform
    clock: Callable[[], datetime]
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
