"""The gateway's way to Redis: nobody ever waits for a Redis that is gone."""

import asyncio
from typing import Any

import pytest

from loam_gateway.adapters.redis import Redis, RedisUnavailableError

from .._servers import embedded


async def outcome(work: Any) -> str:
    """What came of asking, in a word."""
    try:
        await asyncio.wait_for(work, 2)
    except RedisUnavailableError:
        return "told"
    except TimeoutError:
        return "left waiting"
    return "answered"


async def test_whoever_asks_around_the_moment_at_which_redis_is_killed_is_answered_or_told(folder):
    (folder / "killed").mkdir()
    valkey = embedded.Valkey(folder / "killed")
    valkey.start()
    async with Redis.open(valkey.url) as redis:
        asked: list[asyncio.Task[str]] = []

        async def keep_asking() -> None:
            # One more in every turn of the loop, so that one comes between the end and the news of it.
            while True:
                asked.append(asyncio.create_task(outcome(redis.execute("PING"))))
                await asyncio.sleep(0)

        asking = asyncio.create_task(keep_asking())
        await asyncio.sleep(0.05)
        await asyncio.to_thread(valkey.kill)
        await asyncio.sleep(0.3)
        asking.cancel()
        outcomes = set(await asyncio.gather(*asked))
        assert outcomes == {"answered", "told"}


async def test_what_is_asked_of_a_connection_that_just_ended_is_refused_at_once(valkey_url):
    async with Redis.open(valkey_url) as redis:
        assert redis._link is not None
        redis._link.end("it was killed")
        with pytest.raises(RedisUnavailableError, match="it was killed"):
            await asyncio.wait_for(redis.execute("PING"), 2)
        redis.tell("return 1", [], [])
