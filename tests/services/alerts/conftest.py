"""Receivers, and rooms of several gateways on one database."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from loam_gateway.adapters.postgres import Pool, connect
from loam_gateway.alerts.room import Alerts
from loam_gateway.alerts.settings import AlertSettings
from loam_gateway.directory import secrets
from loam_gateway.directory.caps import tenant_policies
from loam_gateway.ledger import Ledger
from loam_gateway.ledger.model import Hold, HoldRequest, Kind, Price, Settlement, Tokens
from loam_gateway.metrics import Metrics
from loam_gateway.vault import Vault
from loam_shared.contracts.admin import TenantPut

from ._receivers import Mailbox, Webhook, mailbox, webhook

VAULT = Vault(os.urandom(32))


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as made:
        yield made


@pytest.fixture
def mails() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


@pytest_asyncio.fixture
async def ledger(pool: Pool) -> AsyncIterator[Ledger]:
    async with Ledger(pool, reap_seconds=3600) as made:
        yield made


@dataclass(frozen=True)
class Customer:
    """A tenant with one key, and what it spends."""

    pool: Pool
    ledger: Ledger
    name: str

    async def put(self, **budget: Any) -> None:
        """Its budget and where its alerts go, as the gateway keeps them."""
        services = budget.pop("services", [])
        put = TenantPut.model_validate({"uid": "uid", "budget": budget, "services": services})
        sealed = secrets.sealed_tenant(VAULT, put).to_json()
        await self.pool.execute(
            "UPDATE tenants SET settings = $2, updated_at = clock_timestamp() WHERE name = $1", self.name, sealed
        )
        await self.ledger.set_policy(*tenant_policies(self.name, put.budget))

    async def spend(self, nanos: int, user: str | None = None) -> None:
        request = HoldRequest("r", self.name, "backend", kind=Kind.COMPLETION, model="m", fixed_nanos=nanos, user=user)
        hold = await self.ledger.hold(request)
        assert isinstance(hold, Hold)
        await self.ledger.settle(
            hold, Settlement(cost_nanos=nanos, tokens=Tokens(input=nanos), price=Price(input=1_000_000))
        )

    async def alerts(self) -> list[tuple[str, str, int, int]]:
        rows = await self.pool.fetch(
            "SELECT scope::text, period::text, percent, cap FROM budget_alerts WHERE tenant = $1 ORDER BY 1, 2, 3, 4",
            self.name,
        )
        return [tuple(row) for row in rows]

    async def deliveries(self) -> list[dict[str, Any]]:
        rows = await self.pool.fetch(
            "SELECT d.* FROM alert_deliveries d JOIN budget_alerts a ON a.id = d.alert WHERE tenant = $1", self.name
        )
        return [dict(row) for row in rows]


@pytest_asyncio.fixture
async def customer(pool: Pool, ledger: Ledger) -> Customer:
    return await new_customer(pool, ledger)


async def new_customer(pool: Pool, ledger: Ledger) -> Customer:
    name = f"t{os.urandom(6).hex()}"
    await pool.execute("INSERT INTO tenants (name, uid) VALUES ($1, 'uid')", name)
    await pool.execute("INSERT INTO api_keys (tenant, key_id, name) VALUES ($1, 'backend', 'backend')", name)
    return Customer(pool, ledger, name)


Rooms = Callable[..., Any]


@pytest_asyncio.fixture
async def open_room(database_url: str, ledger: Ledger) -> AsyncIterator[Rooms]:
    """Starts rooms at work, each with connections of its own, as each gateway has."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(mail: Mailbox | None = None, *, working: bool = True, **settings: Any) -> Alerts:
            pool = await connect(database_url, 4)
            stack.push_async_callback(pool.close)
            quick = {"alerts_look_seconds": 0.05, "alerts_retry_seconds": 0.1, "alerts_send_timeout": 5}
            more = {"smtp_url": mail.url if mail else None, "alerts_from": "loam@platform.example"}
            room = Alerts(pool, ledger, VAULT, AlertSettings(**quick | more | settings), Metrics())
            if working:
                await stack.enter_async_context(room.working())
            return room

        yield start


async def until(condition: Callable[[], Any], what: str, seconds: float = 10) -> None:
    """Waits for a condition, which may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            value = condition()
            if await value if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0.01)
    raise AssertionError(what)
