"""What tenants have spent, for the status of their manifests."""

from datetime import UTC, datetime

import asyncpg

from loam_gateway.adapters.postgres import Pool
from loam_shared.contracts.admin import Spend
from loam_shared.money import format_usd

_SPENDING = """
SELECT t.name,
       coalesce(sum(a.posted) FILTER (WHERE a.period = 'month'), 0)::bigint AS month,
       coalesce(sum(a.posted) FILTER (WHERE a.period = 'day'), 0)::bigint AS day,
       coalesce(bool_and(a.cap IS NULL OR a.posted < a.cap), true) AS within_budget
FROM tenants t
LEFT JOIN accounts a ON a.tenant = t.name AND a.scope = 'tenant' AND a.retired_at IS NULL
    AND a.window_start <= now() AND a.window_end > now()
WHERE t.active AND ($1::text IS NULL OR t.name = $1)
GROUP BY t.name
"""


async def spending(pool: Pool, tenant: str | None = None) -> dict[str, Spend]:
    """The current windows' spend of every tenant, or of one."""
    now = datetime.now(UTC)
    return {row["name"]: _spend(row, now) for row in await pool.fetch(_SPENDING, tenant)}


def _spend(row: asyncpg.Record, now: datetime) -> Spend:
    return Spend(
        month_usd=format_usd(row["month"]),
        day_usd=format_usd(row["day"]),
        as_of=now,
        within_budget=row["within_budget"],
    )
