"""The outbox: messages that wait to be sent, shared by all gateways.

Claiming a message moves its next attempt on by a lease, in one short transaction; nothing is locked while it is sent.
So what a killed gateway had claimed is taken up by another as soon as the lease is over.
"""

from collections.abc import Collection, Iterable

import asyncpg
import orjson

from loam_gateway.adapters.postgres import Pool
from loam_gateway.alerts.model import Alert, Channel, Delivery, DeliveryError
from loam_gateway.ledger.model import Period, Scope
from loam_shared.contracts.admin import AlertState

NO_MAIL = "MailNotConfigured", "the platform has no mail server, so alerts by e-mail wait until it has one"

NOT_WANTED = "NotWanted"
_CLAIM = """
WITH first AS MATERIALIZED (
    SELECT DISTINCT ON (a.tenant) d.id
    FROM alert_deliveries AS d JOIN budget_alerts AS a ON a.id = d.alert
    WHERE d.next_attempt_at <= now() AND a.tenant <> ALL ($3) ORDER BY a.tenant, d.next_attempt_at
), due AS (
    SELECT id FROM alert_deliveries WHERE id IN (SELECT id FROM first) AND next_attempt_at <= now()
    ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE alert_deliveries AS d
    SET attempts = attempts + 1, next_attempt_at = clock_timestamp() + $2::float8 * interval '1 second'
    FROM due WHERE d.id = due.id
    RETURNING d.id, d.alert, d.channel, d.recipient, d.attempts
)
SELECT c.id, c.channel, c.recipient, c.attempts, a.id AS alert, a.tenant, a.scope, a.subject, a.period, a.percent,
       a.cap, a.spent, a.window_end, a.raised_at,
       t.settings #>> '{budget,alerts,slackWebhook}' AS slack_webhook, t.settings -> 'services' AS services,
       coalesce(CASE c.channel
           WHEN 'slack' THEN t.settings #> '{budget,alerts,slackWebhook}' IS NOT NULL
           ELSE t.settings #> '{budget,alerts,emails}' ? c.recipient END, false) AS wanted
FROM claimed AS c JOIN budget_alerts AS a ON a.id = c.alert LEFT JOIN tenants AS t ON t.name = a.tenant AND t.active
"""
_SENT = """
UPDATE alert_deliveries
SET sent_at = clock_timestamp(), tried_at = clock_timestamp(), next_attempt_at = NULL, reason = NULL, message = NULL
WHERE id = $1
"""
# What somebody else has claimed since, or sent, is theirs to judge.
_FAILED = """
UPDATE alert_deliveries AS d
SET reason = $3, message = $4, tried_at = clock_timestamp(),
    next_attempt_at = CASE
        WHEN $5::float8 IS NULL OR clock_timestamp() - a.raised_at > $6::float8 * interval '1 second' THEN NULL
        ELSE clock_timestamp() + $5 * interval '1 second' END
FROM budget_alerts AS a
WHERE d.id = $1 AND d.attempts = $2 AND d.sent_at IS NULL AND a.id = d.alert
RETURNING next_attempt_at IS NULL
"""
_RETRY = """
UPDATE alert_deliveries SET next_attempt_at = least(next_attempt_at, clock_timestamp())
WHERE next_attempt_at IS NOT NULL AND reason IS NOT NULL
  AND alert IN (SELECT id FROM budget_alerts WHERE tenant = $1)
"""
# By tenant the newest failure, unless the same target was reached since, or the tenant has changed meanwhile. It starts
# from the few messages that failed.
_TROUBLES = """
WITH troubles AS (
    SELECT DISTINCT ON (a.tenant) a.tenant, d.reason, d.message
    FROM alert_deliveries AS d JOIN budget_alerts AS a ON a.id = d.alert JOIN tenants AS t ON t.name = a.tenant
    WHERE d.reason IS NOT NULL AND d.reason <> $2 AND ($1::text IS NULL OR t.name = $1) AND d.tried_at > t.updated_at
      AND NOT EXISTS (
          SELECT FROM alert_deliveries AS later JOIN budget_alerts AS b ON b.id = later.alert
          WHERE b.tenant = a.tenant AND (later.channel, later.recipient) = (d.channel, d.recipient)
            AND later.sent_at > d.tried_at)
    ORDER BY a.tenant, d.tried_at DESC
)
SELECT t.name, coalesce(jsonb_array_length(t.settings #> '{budget,alerts,emails}'), 0) > 0 AS mails, w.reason, w.message
FROM tenants AS t LEFT JOIN troubles AS w ON w.tenant = t.name
WHERE t.active AND ($1::text IS NULL OR t.name = $1)
"""


class Outbox:
    """Messages by their state in PostgreSQL. `lease` is in seconds and must be longer than an attempt."""

    def __init__(self, pool: Pool, *, lease: float, give_up_after: float) -> None:
        self._pool, self._lease, self._give_up_after = pool, lease, give_up_after

    async def claim(self, most: int, busy: Collection[str] = ()) -> list[Delivery]:
        """Messages that are due, one of each tenant that is not among the `busy`. They are ours for the lease."""
        return [_delivery(row) for row in await self._pool.fetch(_CLAIM, most, self._lease, list(busy))]

    async def sent(self, delivery: Delivery) -> None:
        """It has arrived."""
        await self._pool.execute(_SENT, delivery.id)

    async def failed(self, delivery: Delivery, error: DeliveryError, pause: float | None) -> bool:
        """Note why it was not sent, and try again after `pause` seconds. True when it is given up instead."""
        arguments = (delivery.id, delivery.attempt, error.reason, error.message, pause, self._give_up_after)
        return bool(await self._pool.fetchval(_FAILED, *arguments))

    async def retry(self, tenant: str) -> None:
        """Try all that failed at once: what the tenant said of its targets has changed."""
        await self._pool.execute(_RETRY, tenant)

    async def states(self, *, mails: bool, tenant: str | None = None) -> dict[str, AlertState]:
        """How alerts fare, by tenant, or for one. `mails` is whether mails can be sent at all."""
        rows = await self._pool.fetch(_TROUBLES, tenant, NOT_WANTED)
        return {row["name"]: _state(row, mails=mails) for row in rows}


def _state(row: asyncpg.Record, *, mails: bool) -> AlertState:
    if row["mails"] and not mails:
        return AlertState(ready=False, reason=NO_MAIL[0], message=NO_MAIL[1])
    if row["reason"] is None:
        return AlertState()
    return AlertState(ready=False, reason=row["reason"], message=row["message"])


def _delivery(row: asyncpg.Record) -> Delivery:
    return Delivery(
        id=row["id"],
        alert=_alert(row),
        channel=Channel(row["channel"]),
        recipient=row["recipient"],
        attempt=row["attempts"],
        raised_at=row["raised_at"],
        wanted=row["wanted"],
        slack_webhook=row["slack_webhook"],
        services=frozenset(_services(row["services"])),
    )


def _alert(row: asyncpg.Record) -> Alert:
    return Alert(
        id=row["alert"],
        tenant=row["tenant"],
        scope=Scope(row["scope"]),
        subject=row["subject"],
        period=Period(row["period"]),
        percent=row["percent"],
        cap_nanos=row["cap"],
        spent_nanos=row["spent"],
        resets_at=row["window_end"],
    )


def _services(stored: str | None) -> Iterable[tuple[str, int]]:
    for service in orjson.loads(stored or "[]"):
        yield from ((service["host"], port) for port in service["ports"])
