"""A month ends in the middle of load: nobody is refused by the one that is over, and nothing is lost in between."""

import asyncio
import itertools
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import aiohttp
import asyncpg
import pytest_asyncio

from loam_gateway.migrations import upgrade

from ..services.gateway._platform import HAIKU, say
from ._bed import Replica, replicas_running

DATABASE = "turning"
SECONDS_BEFORE, SECONDS_AFTER = 3.0, 3.0
CALLERS, SLOW = 20, 10

# The ledger goes by the database's clock, so that is what is turned: found first, it shadows PostgreSQL's own.
_CLOCK = f"""
CREATE TABLE clock (ahead interval NOT NULL);
INSERT INTO clock VALUES ('0');
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
RETURN pg_catalog.clock_timestamp() + (SELECT ahead FROM public.clock);
ALTER DATABASE {DATABASE} SET search_path = public, pg_catalog;
"""
_ENTRIES = """
SELECT e.root_request_id, e.outcome, e.held_at, e.posted_at, e.cost,
       (SELECT bool_and(e.held_at >= a.window_start AND e.held_at < a.window_end) AND count(*) = cardinality(e.accounts)
        FROM accounts AS a WHERE a.id = ANY (e.accounts)) AS in_its_windows
FROM entries AS e WHERE tenant = $1
"""
_MONTHS = """
SELECT window_start, cap, held, posted, overrun FROM accounts
WHERE tenant = $1 AND scope = 'tenant' AND period = 'month' AND posted > 0 ORDER BY window_start
"""


@dataclass(frozen=True)
class Heard:
    """What a caller heard, and when it had asked. `resets_at` says which window refused it."""

    request_id: str
    sent_at: float
    status: int
    resets_at: datetime | None


@pytest_asyncio.fixture
async def turning(bed):
    """Two gateways on a database whose clock can be turned."""
    url = bed.postgres.url(DATABASE)
    administrator = await asyncpg.connect(bed.postgres.url("template1"))
    await administrator.execute(f"CREATE DATABASE {DATABASE}")
    await asyncio.to_thread(upgrade, url)
    connection = await asyncpg.connect(url)
    await connection.execute(_CLOCK)
    await connection.close()
    servers = type(bed.servers)(**(vars(bed.servers) | {"database_url": url}))
    replicas = Replica.several(2, bed.folder, servers)
    connection = await asyncpg.connect(url)
    async with replicas_running(replicas):
        replicas[0].model("haiku", HAIKU)
        yield replicas, connection
    await connection.close()
    await administrator.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    await administrator.close()


class Callers:
    """Callers of one tenant, who ask two gateways in turn."""

    def __init__(self, session, replicas, tenant):
        self._session = session
        self._urls = [f"{replica.public}/v1/chat/completions" for replica in replicas]
        self._key = tenant.new_key()
        self._tenant = tenant
        self.heard = []

    async def ask(self, number, count, text="quick"):
        request_id = f"{self._tenant.name}-{text}-{number}-{count}"
        headers = {"authorization": f"Bearer {self._key}", "x-request-id": request_id}
        body = {"model": "haiku", "messages": say(f"{self._tenant.name} {text} {request_id}"), "max_tokens": 64}
        sent_at = time.monotonic()
        async with self._session.post(self._urls[number % 2], json=body, headers=headers) as response:
            answer = await response.json()
        resets_at = answer.get("error", {}).get("resetsAt")
        resets_at = resets_at and datetime.fromisoformat(resets_at)
        self.heard.append(Heard(request_id, sent_at, response.status, resets_at))
        return response

    async def keep_asking(self, number, until):
        for count in itertools.count():
            if time.monotonic() > until:
                return
            await self.ask(number, count)


async def turn_the_clock(database) -> tuple[datetime, float]:
    """Let the month end in SECONDS_BEFORE; returns which moment that is, by the calendar and by our own clock."""
    now = datetime.now(UTC)
    turn = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    await database.execute("UPDATE clock SET ahead = $1", turn - now - timedelta(seconds=SECONDS_BEFORE))
    return turn, time.monotonic() + SECONDS_BEFORE


async def load_over_the_turn(bed, replicas, tenant, database):
    """What callers heard, the moment of the turn, and the same by our own clock."""
    bed.bedrock.play({"contains": f"{tenant.name} slow", "fault": {"delayMs": round(SECONDS_BEFORE * 1000)}})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        callers = Callers(session, replicas, tenant)
        cost = Decimal((await callers.ask(0, 0, "first")).headers["x-loam-cost-usd"])
        # Enough for all slow ones, and for less than the quick ones ask until the turn.
        tenant.put(budget={"monthlyUsd": str(cost * 150)})
        callers.heard.clear()
        turn, turns_at = await turn_the_clock(database)
        slow = [asyncio.create_task(callers.ask(number, 0, "slow")) for number in range(SLOW)]
        while await database.fetchval("SELECT count(*) FROM holds") < SLOW:  # noqa: ASYNC110 - gateways take them
            await asyncio.sleep(0.01)
        quick = (callers.keep_asking(number, turns_at + SECONDS_AFTER) for number in range(CALLERS))
        await asyncio.gather(*quick, *slow)
    return callers.heard, turn, turns_at


async def test_a_month_that_ends_under_load_refuses_nobody_afterwards_and_loses_nothing(bed, turning):
    replicas, database = turning
    tenant = replicas[0].new_tenant()
    heard, turn, turns_at = await load_over_the_turn(bed, replicas, tenant, database)
    tenant.close()
    # A quarter of a second is what the two clocks that are compared here may differ.
    late = turns_at + 0.25
    assert {told.status for told in heard} == {200, 402}
    refused = [told for told in heard if told.status == 402]
    assert [told for told in refused if told.sent_at < turns_at], "the old month's budget was never used up"
    assert [told for told in refused if told.sent_at > late and told.resets_at <= turn] == []
    served = {told.request_id: told for told in heard if told.status == 200}

    entries = {row["root_request_id"]: row for row in await database.fetch(_ENTRIES, tenant.name)}
    assert served.keys() <= entries.keys()
    assert len(entries) == len(served) + 1
    assert [request_id for request_id in served if entries[request_id]["held_at"] >= turn]
    assert {row["outcome"] for row in entries.values()} == {"complete"}
    assert all(row["in_its_windows"] for row in entries.values())
    assert len([row for row in entries.values() if row["held_at"] < turn <= row["posted_at"]]) >= SLOW
    months = await database.fetch(_MONTHS, tenant.name)
    assert [(month["held"], month["overrun"]) for month in months] == [(0, 0)] * 2
    assert all(month["posted"] <= month["cap"] for month in months)
    sums = [sum(row["cost"] for row in entries.values() if (row["held_at"] >= turn) == new) for new in (False, True)]
    assert [month["posted"] for month in months] == sums
