"""Looking for budgets that passed a percentage of their cap."""

from collections.abc import Collection
from datetime import timedelta

from loam_gateway.adapters.postgres import Pool

# One gateway looks at a time; whoever comes meanwhile has nothing to do.
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('loam.alerts'))"

# Set-based, and away from where money moves: a posting costs nothing more for it. A window that has ended is looked at
# for another hour, since calls settle in the window that they began in. An account whose cap changes has its
# percentages told again for the new cap, but never twice for the same; and no more often than is bearable.
_RAISE = """
WITH rungs AS MATERIALIZED (
    SELECT name, percent::integer AS percent
    FROM tenants, jsonb_array_elements_text(settings -> 'budget' -> 'alertPercents') AS percent WHERE active
), passed AS MATERIALIZED (
    SELECT a.id AS account, r.percent, a.cap FROM accounts AS a JOIN rungs AS r ON r.name = a.tenant
    WHERE a.cap > 0 AND a.retired_at IS NULL AND a.scope <> 'run' AND a.window_end > now() + $1 - interval '1 hour'
      AND {passed}
    EXCEPT SELECT account, percent, cap FROM budget_alerts WHERE window_end > now() + $1 - interval '1 hour'
), raised AS (
    INSERT INTO budget_alerts (
        account, tenant, scope, subject, period, window_start, window_end, percent, cap, spent)
    SELECT a.id, a.tenant, a.scope, a.subject, a.period, a.window_start, a.window_end, p.percent, p.cap, a.posted
    FROM passed AS p JOIN accounts AS a ON a.id = p.account
    WHERE (SELECT count(*) FROM budget_alerts AS b WHERE b.account = a.id) < $2
    ON CONFLICT DO NOTHING
    RETURNING id, tenant
), queued AS (
    INSERT INTO alert_deliveries (alert, channel, recipient)
    SELECT r.id, target.channel, target.recipient
    FROM raised AS r JOIN tenants AS t ON t.name = r.tenant, LATERAL (
        SELECT 'slack', '' WHERE t.settings #> '{{budget,alerts,slackWebhook}}' IS NOT NULL
        UNION SELECT 'email', jsonb_array_elements_text(t.settings #> '{{budget,alerts,emails}}')
    ) AS target(channel, recipient)
)
SELECT count(*) FROM raised
"""
# posted * 100 >= cap * percent, without leaving 64 bits.
_REACHED = "a.posted >= a.cap / 100 * {percent} + (a.cap % 100 * {percent} + 99) / 100"
_PASSED = _RAISE.format(passed=_REACHED.format(percent="r.percent"))
# Calls are refused as soon as they do not fit, so hardly any cap is ever spent to its last nano-dollar. That one was
# refused counts as all of it, where so much is spent that it was no matter of one huge call.
_USED_UP = _RAISE.format(
    passed="r.percent = 100 AND a.id = ANY ($3) AND a.posted::numeric * 100 >= a.cap::numeric * 90"
)
# Nobody looks at an account that long after its window.
_FORGET = "DELETE FROM budget_alerts WHERE window_end < clock_timestamp() + $1 - interval '40 days'"
MOST_PER_ACCOUNT = 100


async def look(pool: Pool, clock_offset: timedelta = timedelta()) -> int:
    """Write an alert, with a delivery for each target, for each percentage that was passed. Returns how many."""
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval(_LOCK):
            return 0
        raised: int = await connection.fetchval(_PASSED, clock_offset, MOST_PER_ACCOUNT)
        return raised


async def used_up(pool: Pool, refusing: Collection[int], clock_offset: timedelta = timedelta()) -> int:
    """The same, at 100 percent, for accounts that have refused a call and are nearly spent."""
    raised: int = await pool.fetchval(_USED_UP, clock_offset, MOST_PER_ACCOUNT, list(refusing))
    return raised


async def forget(pool: Pool, clock_offset: timedelta = timedelta()) -> None:
    """Drop alerts, with their deliveries, that are of no more use."""
    await pool.execute(_FORGET, clock_offset)
