"""Caps: setting them, within the transaction of the one who changes a tenant or a key."""

from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from loam_gateway.adapters.postgres import Connection
from loam_gateway.ledger.model import Policy


async def set_policies(
    connection: "Connection | asyncpg.Connection[asyncpg.Record]",
    policies: Sequence[Policy],
    *,
    actor: str = "operator",
    clock_offset: timedelta = timedelta(),
) -> None:
    """Set caps, or take them away, in the connection's transaction; the running windows follow at its commit.

    It never fails for what was spent already: an account above its new cap shows the rest as overrun. The tenant's
    row, if there is one yet, is locked until the transaction ends.
    """
    rows = [(p.tenant, p.scope, p.subject, p.period, p.origin, p.cap_nanos) for p in policies]
    await connection.execute("SELECT ledger_set_policies($1, $2, $3)", rows, actor, clock_offset)


async def retire(
    connection: "Connection | asyncpg.Connection[asyncpg.Record]",
    tenant: str,
    *,
    actor: str = "operator",
    clock_offset: timedelta = timedelta(),
) -> None:
    """Begin anew under the tenant's name, in the connection's transaction: nothing is spent yet, and nothing capped.

    What was held before settles where it was held.
    """
    await connection.execute("SELECT ledger_retire($1, $2, $3)", tenant, actor, clock_offset)
