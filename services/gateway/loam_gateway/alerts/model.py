"""An alert and its delivery, as values."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from loam_gateway.ledger.model import Period, Scope


class Channel(StrEnum):
    """How somebody is told."""

    SLACK = "slack"
    EMAIL = "email"


@dataclass(frozen=True, slots=True)
class Alert:
    """A budget passed a percentage of its cap. Money in nano-dollars, as it stood then."""

    id: UUID
    tenant: str
    scope: Scope
    subject: str
    period: Period
    percent: int
    cap_nanos: int
    spent_nanos: int
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one recipient, claimed for one attempt. `id` is the same at each attempt.

    `wanted` is whether the tenant still names the target; `slack_webhook` is its present one, encrypted, and `services`
    are the addresses inside that it may have called.
    """

    id: UUID
    alert: Alert
    channel: Channel
    recipient: str
    attempt: int
    raised_at: datetime
    wanted: bool
    slack_webhook: str | None = field(repr=False)
    services: frozenset[tuple[str, int]]


class DeliveryError(Exception):
    """Why an attempt failed, for the Tenant's status: a reason in CamelCase and a sentence.

    `persistent` when trying again soon would be for nothing: somebody has to change something first. `final` when
    trying again would be wrong. `after` is when the other side wants to be asked again, in seconds.
    """

    def __init__(
        self, reason: str, message: str, *, persistent: bool = False, final: bool = False, after: float = 0
    ) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message
        self.persistent, self.final, self.after = persistent, final, after
