"""A tenant and ledgers for each test, on a database that the module shares."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest_asyncio

from loam_gateway.adapters.postgres import Pool, connect
from loam_gateway.ledger import Ledger
from loam_gateway.ledger.model import Balance, Hold, HoldRequest, Kind, Period, Policy, Price, Scope, Settlement, Tokens

# Reaping by itself would blur what the tests look at; those that want it call `reap`.
NEVER = 3600.0


@dataclass(frozen=True)
class Customer:
    """A tenant of its own with one active key."""

    pool: Pool
    name: str
    key_id: str = "backend"

    def request(self, nanos: int = 0, **more: Any) -> HoldRequest:
        """A request that holds `nanos`, unless more is said."""
        facts: dict[str, Any] = {"root_request_id": "r", "tenant": self.name, "key_id": self.key_id}
        facts |= {"kind": Kind.COMPLETION, "model": "claude-haiku", "fixed_nanos": nanos}
        return HoldRequest(**facts | more)

    async def account(self, scope: Scope = Scope.TENANT, period: Period = Period.DAY, subject: str = "") -> Balance:
        """The newest account of that kind as the database has it."""
        row = await self.pool.fetchrow(
            "SELECT * FROM accounts WHERE (tenant, scope, period, subject) = ($1, $2, $3, $4) "
            "ORDER BY window_start DESC LIMIT 1",
            *(self.name, scope, period, subject),
        )
        assert row is not None
        money = (row["cap"], row["held"], row["posted"], row["overrun"])
        return Balance(scope, subject, period, *money, resets_at=row["window_end"])

    async def entries(self) -> list[asyncpg.Record]:
        """What was posted, oldest first."""
        return await self.pool.fetch("SELECT * FROM entries WHERE tenant = $1 ORDER BY posted_at, held_at", self.name)

    def cap(
        self, nanos: int | None, scope: Scope = Scope.TENANT, period: Period = Period.DAY, subject: str = ""
    ) -> Policy:
        """A cap, by default the tenant's daily one."""
        return Policy(self.name, scope, period, nanos, subject)


def paid(nanos: int, **more: Any) -> Settlement:
    """A settlement that costs `nanos`, at a price that says so."""
    return Settlement(cost_nanos=nanos, tokens=Tokens(input=nanos), price=Price(input=1_000_000), **more)


def granted(answer: object) -> Hold:
    """`answer`, which is a hold."""
    assert isinstance(answer, Hold)
    return answer


@pytest_asyncio.fixture
async def customer(pool: Pool) -> Customer:
    """A tenant without any cap."""
    return await new_customer(pool)


async def new_customer(pool: Pool) -> Customer:
    """As the fixture, for tests that need several."""
    name = f"t{os.urandom(6).hex()}"
    await pool.execute("INSERT INTO tenants (name, uid) VALUES ($1, 'uid')", name)
    await pool.execute("INSERT INTO api_keys (tenant, key_id, name) VALUES ($1, 'backend', 'backend')", name)
    return Customer(pool, name)


OpenLedger = Callable[..., Awaitable[Ledger]]


@pytest_asyncio.fixture
async def open_ledger(database_url: str) -> AsyncIterator[OpenLedger]:
    """Opens ledgers, each with connections of its own, as each gateway has."""
    opened: list[tuple[Ledger, Pool]] = []

    async def open_one(
        url: str = database_url, *, ahead: timedelta = timedelta(), patience: float = 10, retention_months: int = 24
    ) -> Ledger:
        pool = await connect(url, 4)
        ledger = Ledger(
            pool, clock_offset=ahead, patience=patience, reap_seconds=NEVER, retention_months=retention_months
        )
        opened.append((ledger, pool))
        await ledger.start()
        return ledger

    yield open_one
    for ledger, pool in opened:
        await ledger.close()
        await pool.close()


@pytest_asyncio.fixture
async def ledger(open_ledger: OpenLedger) -> Ledger:
    """One ledger."""
    return await open_ledger()
