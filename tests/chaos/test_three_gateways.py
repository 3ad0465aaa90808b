"""Three gateways are one: limits, places and revocations count for all of them together, and outlive any of them."""

import asyncio
import time
from collections import Counter

import aiohttp
import pytest

from ..services.gateway._platform import say

# How long a place among the requests at once outlives its gateway.
LEASE_SECONDS = 10


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


async def ask(session, replica, key, text, **more):
    """Status and headers."""
    body = {"model": "haiku", "messages": say(text), "max_tokens": 64} | more
    headers = {"authorization": f"Bearer {key}", "cache-control": "no-store"}
    async with session.post(f"{replica.public}/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        return response.status, response.headers


async def until(look, seconds):
    """Wait until `look` gives true."""
    async with asyncio.timeout(seconds):
        while not await look():  # noqa: ASYNC110 - gateways decide
            await asyncio.sleep(0.05)


async def holds_of(database, tenant, count):
    """Whether so many requests of a tenant are under way."""
    return await database.fetchval("SELECT count(*) FROM holds WHERE tenant = $1", tenant.name) == count


async def all_at_once(bed, session, key, count, text):
    """How often each status came, of requests that went to the gateways in turn."""
    asks = (ask(session, bed.replicas[number % 3], key, f"{text} {number}") for number in range(count))
    return Counter(status for status, _headers in await asyncio.gather(*asks))


async def test_of_many_at_once_over_three_gateways_exactly_as_many_get_in_as_the_limit_says(bed, tenant, session):
    tenant.put(rateLimit={"requestsPerMinute": 40})
    key, began = tenant.new_key(), time.monotonic()
    counted = await all_at_once(bed, session, key, 150, tenant.name)
    # While they were sent, a place more became free every second and a half.
    assert 40 <= counted[200] <= 40 + (time.monotonic() - began) / 1.5
    assert counted[200] + counted[429] == 150


async def test_retry_after_is_right_to_the_second(bed, tenant, session):
    """One second less would be too early, and at that moment there is room, whichever gateway is asked."""
    tenant.put(rateLimit={"requestsPerMinute": 30})
    key = tenant.new_key()
    await all_at_once(bed, session, key, 30, tenant.name)
    asked_at = time.monotonic()
    status, headers = await ask(session, bed.replicas[1], key, tenant.name)
    if status == 200:
        asked_at = time.monotonic()
        status, headers = await ask(session, bed.replicas[1], key, tenant.name)
    wait = int(headers["retry-after"])
    assert (status, wait) in ((429, 1), (429, 2))
    while (await ask(session, bed.replicas[2], key, f"{tenant.name} again"))[0] == 429:
        assert time.monotonic() - asked_at < wait + 0.5, "it was told to come back too early"
        await asyncio.sleep(0.05)
    assert time.monotonic() - asked_at > wait - 1, "it was told to come back too late"


async def test_the_places_for_requests_at_once_are_shared_and_come_back(bed, tenant, session):
    tenant.put(rateLimit={"concurrentRequests": 5})
    bed.bedrock.play({"contains": tenant.name, "fault": {"delayMs": 600}})
    key = tenant.new_key()
    assert await all_at_once(bed, session, key, 20, tenant.name) == {200: 5, 429: 15}

    async def all_free():
        return await all_at_once(bed, session, key, 5, tenant.name) == {200: 5}

    # A place is given back as the answer goes out, and nobody waits for that: another gateway may be a moment faster.
    await until(all_free, 5)


async def test_places_outlive_a_killed_gateway_by_seconds_and_last_as_long_as_calls_that_live(
    bed, tenant, session, database
):
    neighbour = bed.replicas[0].new_tenant()
    slow_call = {"contains": "slow", "fault": {"delayMs": (LEASE_SECONDS + 7) * 1000}}
    bed.bedrock.play(slow_call)
    keys = {}
    for each in (tenant, neighbour):
        each.put(rateLimit={"concurrentRequests": 2})
        keys[each.name] = each.new_key()

    async def full_house(replica, whose):
        calls = [
            asyncio.create_task(ask(session, replica, keys[whose.name], f"{whose.name} slow {n}")) for n in range(2)
        ]
        await until(lambda: holds_of(database, whose, 2), 10)
        return calls

    async def admitted(whose):
        return (await ask(session, bed.replicas[1], keys[whose.name], f"{whose.name} quick"))[0] == 200

    try:
        killed, living = await full_house(bed.replicas[2], tenant), await full_house(bed.replicas[0], neighbour)
        assert not await admitted(tenant)
        await asyncio.to_thread(bed.replicas[2].kill)
        assert not await admitted(tenant)
        await until(lambda: admitted(tenant), LEASE_SECONDS + 5)
        # By now the first leases of the neighbour's calls would be over as well.
        assert not await admitted(neighbour)
        assert not any(call.done() for call in living)
        assert [status for status, _headers in await asyncio.gather(*living)] == [200, 200]
        assert await admitted(neighbour)
        await asyncio.gather(*killed, return_exceptions=True)
        await asyncio.to_thread(bed.replicas[2].start)
    finally:
        neighbour.close()


async def test_without_redis_all_are_let_in_at_once_and_it_is_counted(bed, tenant, session):
    tenant.put(rateLimit={"requestsPerMinute": 1, "concurrentRequests": 1})
    key = tenant.new_key()
    opened = [replica.metric("loam_rate_limits_failed_open_total") for replica in bed.replicas]
    await asyncio.to_thread(bed.valkey.kill)
    try:
        began = time.monotonic()
        assert await all_at_once(bed, session, key, 30, tenant.name) == {200: 30}
        # Each gateway may find out by waiting for an answer, a quarter of a second, and only once.
        assert time.monotonic() - began < 5
        now = [replica.metric("loam_rate_limits_failed_open_total") for replica in bed.replicas]
        assert [after - before for after, before in zip(now, opened, strict=True)] == [10, 10, 10]
    finally:
        await asyncio.to_thread(bed.valkey.start)

    async def enforced():
        return await all_at_once(bed, session, key, 3, tenant.name) == {429: 3}

    await until(enforced, 10)


async def test_a_revoked_key_is_refused_by_all_three_within_a_second_under_load(bed, tenant, session):
    doomed, other = tenant.new_key("doomed"), tenant.new_key("fine")
    heard, stop = [], asyncio.Event()

    async def keep_asking(replica, key):
        while not stop.is_set():
            sent_at = time.monotonic()
            status, _headers = await ask(session, replica, key, f"{tenant.name} {sent_at}")
            heard.append((key, sent_at, time.monotonic(), status))

    callers = [
        asyncio.create_task(keep_asking(replica, key))
        for replica in bed.replicas
        for key in (doomed, other)
        for _ in range(5)
    ]
    await asyncio.sleep(1)
    asked_at = time.monotonic()
    response = await asyncio.to_thread(bed.replicas[0].delete, f"/tenants/{tenant.name}/keys/doomed")
    revoked_at = time.monotonic()
    assert response.status_code == 204
    await asyncio.sleep(2)
    stop.set()
    await asyncio.gather(*callers)
    assert {status for key, _, heard_at, status in heard if key == doomed and heard_at < asked_at} == {200}
    assert {status for key, sent_at, _, status in heard if key == doomed and sent_at > revoked_at + 1} == {401}
    assert {status for key, _, _, status in heard if key == other} == {200}
