"""Waiting for what is added to a Redis stream, on connections apart: whoever waits keeps one for itself."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Client
from redis.exceptions import RedisError

from loam_gateway.adapters.redis import RedisUnavailableError

_CONNECTIONS = 512
_TIMEOUT_SECONDS = 0.25


class Tail:
    """Reads streams whose entries have the ids 1-0, 2-0 and so on."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["Tail"]:
        """Tails of the Redis at `url`, which need not be up; a connection is made when it is needed."""
        pool = BlockingConnectionPool.from_url(
            url, max_connections=_CONNECTIONS, timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS
        )
        client = Client(connection_pool=pool)
        try:
            yield cls(client)
        finally:
            await client.aclose()
            await pool.aclose()

    async def after(self, key: str, number: int, *, seconds: float, count: int) -> list[tuple[int, dict[bytes, Any]]]:
        """Entries after `number`, which are waited for `seconds` seconds when there are none yet; none after that.

        Raises RedisUnavailableError.
        """
        block = max(1, round(seconds * 1000)) if seconds else None
        try:
            found: Any = await self._client.xread({key: f"{number}-0"}, count=count, block=block)
        except (RedisError, OSError) as error:
            raise RedisUnavailableError(str(error)) from error
        rows = found[0][1] if found else []
        return [(int(bytes(entry).partition(b"-")[0]), fields) for entry, fields in rows]
