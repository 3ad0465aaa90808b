"""What was used and what is left, read from the entries and the accounts."""

from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg

from loam_gateway.adapters.postgres import Pool
from loam_gateway.ledger.accounts import FOREVER, keys_of
from loam_gateway.ledger.model import Balance, Period, Scope, Tokens, UsageRow
from loam_shared.errors import InvalidRequestError

_MOST_ROWS = 10_000
# What usage can be grouped by. The expressions are ours, so they may go into the query's text.
DIMENSIONS = {
    "model": "model",
    "provider": "provider",
    "user": "user_id",
    "key": "key_id",
    "pipeline": "pipeline",
    "agent": "agent",
    "run": "run",
    "kind": "kind",
    "day": "to_char(held_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
_SUMS = """
SELECT {columns} count(*) FILTER (WHERE kind <> 'correction') AS requests,
       coalesce(sum(input_tokens), 0)::bigint AS input, coalesce(sum(output_tokens), 0)::bigint AS output,
       coalesce(sum(cache_read_tokens), 0)::bigint AS cache_read,
       coalesce(sum(cache_write_tokens), 0)::bigint AS cache_write, coalesce(sum(queries), 0)::bigint AS queries,
       coalesce(sum(cost), 0)::bigint AS cost, coalesce(sum(markup), 0)::bigint AS markup,
       coalesce(sum(saving), 0)::bigint AS saving, count(*) FILTER (WHERE estimated) AS estimated,
       count(*) FILTER (WHERE kind = 'cache_hit') AS cached,
       count(*) FILTER (WHERE byok AND kind <> 'correction') AS byok
FROM entries
WHERE tenant = $1 AND held_at >= $2 AND held_at < $3 AND outcome <> 'released'
  AND held_at >= coalesce((SELECT began_at FROM tenants WHERE name = $1), '-infinity')
"""
_BALANCES = """
SELECT k.scope, k.subject, k.period, k.window_end, coalesce(a.held, 0) AS held, coalesce(a.posted, 0) AS posted,
       coalesce(a.overrun, 0) AS overrun,
       CASE WHEN a.id IS NULL THEN effective_cap(k.tenant, k.scope, k.subject, k.period) ELSE a.cap END AS cap
FROM unnest($1::account_key[]) WITH ORDINALITY AS k
LEFT JOIN (SELECT * FROM accounts WHERE retired_at IS NULL) AS a
    USING (tenant, scope, subject, period, window_start)
ORDER BY k.ordinality
"""


async def usage(
    pool: Pool, tenant: str, start: datetime, end: datetime, group_by: Sequence[str] = ()
) -> list[UsageRow]:
    """Sums over the entries of requests from `start` to before `end`, one row per combination of `group_by`.

    Raises InvalidRequestError for something that cannot be grouped by, and for more rows than anybody reads.
    """
    unknown = set(group_by) - DIMENSIONS.keys()
    if unknown:
        wanted = ", ".join(DIMENSIONS)
        raise InvalidRequestError(f"cannot group by {', '.join(sorted(unknown))}; use {wanted}", param="groupBy")
    columns = "".join(f"{DIMENSIONS[name]} AS group_{name}, " for name in group_by)
    query = _SUMS.format(columns=columns)
    if group_by:
        numbers = ", ".join(str(number) for number in range(1, len(group_by) + 1))
        query += f"GROUP BY {numbers} ORDER BY {numbers} LIMIT {_MOST_ROWS + 1}"
    rows = await pool.fetch(query, tenant, start, end)
    if len(rows) > _MOST_ROWS:
        raise InvalidRequestError(f"that is more than {_MOST_ROWS} rows; group by less, or ask for less time")
    return [_usage_row(row, group_by) for row in rows]


def _usage_row(row: asyncpg.Record, group_by: Sequence[str]) -> UsageRow:
    return UsageRow(
        group={name: row[f"group_{name}"] for name in group_by},
        requests=row["requests"],
        tokens=Tokens(row["input"], row["output"], row["cache_read"], row["cache_write"], row["queries"]),
        cost_nanos=row["cost"],
        markup_nanos=row["markup"],
        saving_nanos=row["saving"],
        estimated=row["estimated"],
        cached=row["cached"],
        byok=row["byok"],
    )


async def balances(pool: Pool, moment: datetime, tenant: str, user: str | None, key_id: str | None) -> list[Balance]:
    """The accounts that a request of `user` with `key_id` would be charged to at `moment`, but for a run's."""
    makers = () if key_id is None else (key_id, *await pool.fetchval("SELECT ledger_makers($1, $2)", tenant, key_id))
    keys = keys_of(tenant, user, makers, moment)
    return [_balance(row) for row in await pool.fetch(_BALANCES, keys)]


def _balance(row: asyncpg.Record) -> Balance:
    resets_at = row["window_end"].astimezone(UTC)
    return Balance(
        scope=Scope(row["scope"]),
        subject=row["subject"],
        period=Period(row["period"]),
        cap_nanos=row["cap"],
        held_nanos=row["held"],
        posted_nanos=row["posted"],
        overrun_nanos=row["overrun"],
        resets_at=None if resets_at == FOREVER else resets_at,
    )
