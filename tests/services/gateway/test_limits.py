"""Rate limits in Redis: exact over all gateways, in shared round trips, and a wait that is said is long enough."""

import asyncio
import secrets
from typing import Any

from loam_gateway.adapters.redis import Redis
from loam_gateway.metering import buckets
from loam_gateway.metering.buckets import Ask


def ask(bucket: str, **limits: Any) -> Ask:
    defaults = {"requests_limit": 0, "requests": 1, "tokens_limit": 0, "tokens": 0, "concurrent_limit": 0}
    return Ask(bucket=bucket, lease=secrets.token_hex(8), lease_seconds=10, **(defaults | limits))


def new_bucket() -> str:
    return f"t-{secrets.token_hex(5)}"


async def test_gateways_that_ask_at_once_let_exactly_as_many_through_as_the_limit_says(valkey_url):
    bucket = new_bucket()
    async with Redis.open(valkey_url) as one, Redis.open(valkey_url) as other:
        asked = [buckets.admit(redis, ask(bucket, requests_limit=7)) for redis in (one, other) for _ in range(20)]
        outcomes = await asyncio.gather(*asked)
    assert outcomes.count(None) == 7


async def test_whoever_waits_as_long_as_told_is_let_through(valkey_url):
    bucket = new_bucket()
    limits = {"requests_limit": 600, "requests": 60, "tokens_limit": 60_000, "tokens": 12_000}
    async with Redis.open(valkey_url) as redis:
        # The tokens are used up after five, long before the requests are, and come back more slowly.
        outcomes = [await buckets.admit(redis, ask(bucket, **limits)) for _ in range(6)]
        assert outcomes[:5] == [None] * 5
        refused = await buckets.admit(redis, ask(bucket, **limits | {"tokens": 300}))
        assert refused is not None
        assert refused.limit == "tokensPerMinute"
        await asyncio.sleep(refused.retry_after_ms / 1000)
        assert await buckets.admit(redis, ask(bucket, **limits | {"tokens": 300})) is None


async def test_a_request_that_used_less_than_it_asked_for_gives_the_rest_back_at_once(valkey_url):
    bucket = new_bucket()
    async with Redis.open(valkey_url) as redis:
        first = ask(bucket, tokens_limit=1000, tokens=1000, concurrent_limit=1)
        assert await buckets.admit(redis, first) is None
        assert await buckets.admit(redis, ask(bucket, tokens_limit=1000, tokens=500)) is not None
        # Nobody waits for it, and yet it comes before what is asked next.
        buckets.finish(redis, first, tokens=100)
        assert await buckets.admit(redis, ask(bucket, tokens_limit=1000, tokens=500, concurrent_limit=1)) is None


async def test_what_was_told_last_is_not_lost_when_the_gateway_stops(valkey_url):
    bucket = new_bucket()
    async with Redis.open(valkey_url) as redis:
        last = ask(bucket, concurrent_limit=1)
        assert await buckets.admit(redis, last) is None
        buckets.finish(redis, last, tokens=0)
    async with Redis.open(valkey_url) as redis:
        assert await buckets.admit(redis, ask(bucket, concurrent_limit=1)) is None


async def test_what_is_asked_at_once_shares_round_trips(valkey_url):
    async with Redis.open(valkey_url) as redis, Redis.open(valkey_url) as observer:
        before = await reads(observer)
        answers = await asyncio.gather(*[redis.execute("ECHO", number) for number in range(500)])
        assert answers == [str(number).encode() for number in range(500)]
        assert await reads(observer) - before < 20


async def test_a_script_that_redis_has_forgotten_is_sent_again(valkey_url):
    script = f"return {secrets.randbelow(10**9)}"
    async with Redis.open(valkey_url) as redis:
        known = await redis.evaluate(script, [], [])
        await redis.execute("SCRIPT", "FLUSH")
        assert await redis.evaluate(script, [], []) == known


async def reads(redis: Redis) -> int:
    """How often Redis has read from a connection."""
    stats = (await redis.execute("INFO", "stats")).decode().splitlines()
    return int(dict(line.split(":") for line in stats if ":" in line)["total_reads_processed"])
