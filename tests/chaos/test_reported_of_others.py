"""What users of other gateways report, each tried here on three gateways at once."""

import asyncio
import uuid
from collections import Counter
from decimal import Decimal

import aiohttp
import pytest

from loam_shared.money import format_usd, parse_usd

from ..services.gateway._platform import HAIKU, say

ENTRIES = "SELECT * FROM entries WHERE tenant = $1 ORDER BY posted_at"
MONTH = "SELECT * FROM accounts WHERE tenant = $1 AND scope = 'tenant' AND period = 'month'"
INPUT_NANOS, OUTPUT_NANOS = 250, 1250


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


def asks(session, replica, key, text, **more):
    body = {"model": "haiku", "messages": say(text), "max_tokens": 64} | more
    headers = {"authorization": f"Bearer {key}"}
    return session.post(f"{replica.public}/v1/chat/completions", json=body, headers=headers)


async def answer_to(session, replica, key, text, **more):
    """Status, headers and body."""
    async with asks(session, replica, key, text, **more) as response:
        return response.status, response.headers, await response.text()


async def hang_up(session, replica, key, text, after):
    """Leave a stream after so many lines."""
    async with asks(session, replica, key, text, stream=True) as response:
        for _ in range(after):
            await response.content.readline()
        response.close()


async def until_settled(database, tenant):
    """Wait until nothing is held, and return the month's account."""
    async with asyncio.timeout(20):
        while (month := await database.fetchrow(MONTH, tenant.name))["held"]:  # noqa: ASYNC110 - gateways settle
            await asyncio.sleep(0.02)
    return month


async def test_reservations_that_leak_and_then_refuse_honest_callers(bed, tenant, session, database):
    """However calls end, all that they did not use can be spent again, to the last nano-dollar."""
    name = tenant.name
    faults = {"400": {"error": "400"}, "500": {"error": "500"}, "cut": {"cutAfter": 2}, "slow": {"eventDelayMs": 20}}
    bed.bedrock.play(*({"contains": f"{name} {kind}", "fault": fault} for kind, fault in faults.items()))
    tenant.put(budget={"monthlyUsd": "0.05"})
    key = tenant.new_key()
    works = []
    for number in range(60):
        replica, text = bed.replicas[number % 3], f"{name} {[*faults, 'well'][number % 5]} {number}"
        if number % 5 == 3:
            works.append(hang_up(session, replica, key, text, number % 7))
        else:
            works.append(answer_to(session, replica, key, text, stream=number % 2 == 0))
    await asyncio.gather(*works)
    month = await until_settled(database, tenant)
    assert month["posted"] == sum(entry["cost"] for entry in await database.fetch(ENTRIES, name))
    status, headers, _body = await answer_to(session, bed.replicas[1], key, f"{name} well again")
    assert status == 200
    month = await until_settled(database, tenant)
    assert parse_usd(headers["x-loam-budget-remaining-usd"]) == month["cap"] - month["posted"]


async def test_races_that_overspend(bed, tenant, session, database):
    """A hundred at once over three gateways, where the budget has room for a few of them."""
    bed.bedrock.play({"contains": tenant.name, "fault": {"delayMs": 200}})
    key = tenant.new_key()
    _status, headers, _body = await answer_to(session, bed.replicas[0], key, f"{tenant.name} 0")
    tenant.put(budget={"monthlyUsd": str(Decimal(headers["x-loam-cost-usd"]) * 20)})
    asked = (answer_to(session, bed.replicas[n % 3], key, f"{tenant.name} {n}") for n in range(1, 101))
    statuses = Counter(status for status, _headers, _body in await asyncio.gather(*asked))
    month = await until_settled(database, tenant)
    assert statuses[200] + statuses[402] == 100
    assert statuses[200] > 0 < statuses[402]
    assert month["posted"] <= month["cap"]
    assert month["overrun"] == 0


async def test_counters_of_each_replica_for_itself(bed, tenant, session, database):
    """What one gateway spends is gone for the others at once, to the nano-dollar."""
    tenant.put(budget={"monthlyUsd": "1"})
    key, left = tenant.new_key(), parse_usd("1")
    for number in range(12):
        _status, headers, _body = await answer_to(session, bed.replicas[number % 3], key, f"{tenant.name} {number}")
        left -= parse_usd(headers["x-loam-cost-usd"])
        assert headers["x-loam-budget-remaining-usd"] == format_usd(left)


async def test_streams_that_are_accounted_as_zero(bed, tenant, session, database):
    """A stream whose client asks for no usage costs what the provider bills for it."""
    status, _headers, body = await answer_to(session, bed.replicas[2], tenant.new_key(), f"{tenant.name}", stream=True)
    assert status == 200
    assert "usage" not in body or '"usage":null' in body
    [entry] = await database.fetch(ENTRIES, tenant.name)
    bill = bed.billed_by("loam-tenant")[tenant.name]
    assert (entry["input_tokens"], entry["output_tokens"]) == (bill["inputTokens"], bill["outputTokens"])
    assert entry["cost"] == bill["inputTokens"] * INPUT_NANOS + bill["outputTokens"] * OUTPUT_NANOS > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_models_without_a_price_that_slip_past(bed, tenant, session, database, stream):
    """Neither by name nor as the fallback of a model that is priced, and nobody calls the provider for one."""
    free, named = (f"{kind}-{uuid.uuid4().hex[:6]}" for kind in ("free", "named"))
    bed.replicas[0].model(free, HAIKU | {"uid": free, "modelId": "amazon.nova-lite-v1:0", "price": None})
    bed.replicas[0].model(named, HAIKU | {"uid": named, "fallbacks": [free]})
    tenant.put(models=[free, named])
    bed.bedrock.play({"model": HAIKU["modelId"], "contains": tenant.name, "fault": {"error": "throttle"}})
    key = tenant.new_key()
    answers = [
        await answer_to(session, replica, key, tenant.name, model=model, stream=stream)
        for replica in bed.replicas
        for model in (free, named, "auto")
    ]
    assert all(status >= 400 for status, _headers, _body in answers), answers
    assert [status for status, _headers, _body in answers][::3] == [422] * 3
    assert tenant.name not in bed.billed_by("loam-tenant")
    assert sum(entry["cost"] for entry in await database.fetch(ENTRIES, tenant.name)) == 0


async def test_caches_that_leak_between_tenants(bed, tenant, session):
    """The same words of two tenants are two calls, in the same moment and later, whichever gateway is asked."""
    other = bed.replicas[0].new_tenant()
    try:
        text = f"A secret between us: {uuid.uuid4().hex}"
        keys = (tenant.new_key("k"), other.new_key("k"))
        together = await asyncio.gather(
            *(answer_to(session, bed.replicas[n % 3], key, text) for n in range(6) for key in keys)
        )
        ids = [{body for _status, _headers, body in together[n::2]} for n in range(2)]
        assert not ids[0] & ids[1]
        bills = bed.billed_by("loam-tenant")
        assert bills[tenant.name]["calls"] == bills[other.name]["calls"] == 1
        seen = Counter(headers["x-loam-cache"] for _status, headers, _body in together)
        assert seen == {"miss": 2, "hit": 10}
    finally:
        other.close()
