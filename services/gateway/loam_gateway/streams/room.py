"""The resumable streams of this gateway, and the way to those of others."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi import Response

from loam_gateway.adapters.redis import Redis, RedisUnavailableError
from loam_gateway.adapters.redis_tail import Tail
from loam_gateway.metrics import Metrics
from loam_gateway.places import Places
from loam_gateway.settings import Settings
from loam_gateway.sse import EventStream
from loam_gateway.streams.buffer import Buffer, Found, Name
from loam_gateway.streams.making import Make, Making
from loam_gateway.streams.reel import Numbered, gap
from loam_gateway.vault import Vault
from loam_shared.errors import NotFoundError, RateLimitedError, UnavailableError

STREAM_ID = "x-loam-stream-id"
MOST_ELSEWHERE = 128
"""Listeners of one tenant to streams that other gateways make: each keeps a connection to Redis, of which there are
four times as many for all tenants together."""
_TOO_MANY = f"the tenant resumes {MOST_ELSEWHERE} streams here already"
_STOPPING = UnavailableError("the gateway that made this stream stops", retry_after=1)
_LOST = "the gateway that made this stream is gone, or Redis lost it; ask again from the beginning"


class Streams:
    """Begins streams that may be resumed, and resumes them: for the tenant and key that began them, nobody else."""

    def __init__(self, buffer: Buffer, metrics: Metrics, *, grace: float, max_bytes: int) -> None:
        self._buffer = buffer
        self._metrics = metrics
        self._grace = grace
        self._max_bytes = max_bytes
        self._here: dict[Name, tuple[Making, asyncio.Task[None]]] = {}
        self._listeners = Places(MOST_ELSEWHERE, lambda: RateLimitedError(_TOO_MANY, retry_after=1))

    async def begin(self, owner: str, make: Make, request_id: str) -> Response:
        """The answer that `make` makes, resumable if it is a stream and Redis is there. Raises what `make` raises."""
        name = Name(secrets.token_urlsafe(16), owner)
        making = Making(name, self._buffer, request_id=request_id, grace=self._grace, max_bytes=self._max_bytes)
        try:
            await self._buffer.append(name, (), oldest=1, next_number=1, end=False)
        except RedisUnavailableError:
            self._metrics.streams_open.inc()
            return await make()
        response = await making.begin(make)
        if not isinstance(response, EventStream):
            return response
        self._keep(name, making)
        headers = {key: value for key, value in response.headers.items() if key != "content-type"}
        return EventStream(b"", _frames(making.events(0)), headers | {STREAM_ID: name.stream_id})

    async def resume(self, owner: str, stream_id: str, after: int) -> EventStream:
        """The stream's events after the one numbered `after`. Raises NotFoundError, UnavailableError without Redis."""
        name = Name(stream_id, owner)
        if name in self._here:
            events = self._here[name][0].events(after)
        else:
            found = await self._found(name, after)
            events = self._placed(owner.partition("/")[0], self._elsewhere(name, after, found))
        return EventStream(b"", _frames(events), {STREAM_ID: stream_id})

    async def cancel(self, owner: str, stream_id: str) -> None:
        """End the stream's call: before this returns if it is made here, else within a moment. Raises NotFoundError."""
        name = Name(stream_id, owner)
        if name in self._here:
            await self._here[name][0].stop(UnavailableError("this stream was cancelled"))
            return
        try:
            known = await self._buffer.cancel(name)
        except RedisUnavailableError as error:
            raise _without_redis() from error
        if not known:
            raise NotFoundError("there is no such stream under way")

    async def close(self) -> None:
        """End what is under way, settled, so that listeners elsewhere hear of it."""
        await asyncio.gather(*[making.stop(_STOPPING) for making, _task in self._here.values()])
        if self._here:
            await asyncio.wait([task for _making, task in self._here.values()], timeout=1)

    def _keep(self, name: Name, making: Making) -> None:
        task = asyncio.create_task(making.run())
        self._here[name] = (making, task)
        self._metrics.streams.inc()
        task.add_done_callback(lambda _task: self._forget(name))

    def _forget(self, name: Name) -> None:
        self._metrics.streams.dec()
        del self._here[name]

    async def _found(self, name: Name, after: int) -> Found:
        try:
            found = await self._buffer.find(name, after)
        except RedisUnavailableError as error:
            raise _without_redis() from error
        if not found.known and not found.made:
            raise NotFoundError("there is no such stream, or it ended too long ago")
        return found

    async def _placed(self, tenant: str, events: AsyncGenerator[Numbered, None]) -> AsyncGenerator[Numbered, None]:
        """`events` for one of the tenant's listeners. Raises RateLimitedError when it has too many."""
        with self._listeners.place(tenant):
            async with contextlib.aclosing(events):
                async for event in events:
                    yield event

    async def _elsewhere(self, name: Name, after: int, found: Found) -> AsyncGenerator[Numbered, None]:
        """What another gateway makes, or what one made. Raises NotFoundError for gaps, UnavailableError at its loss."""
        while True:
            for number, event in found.events:
                if number != after + 1:
                    raise gap(after)
                yield number, event
                after = number
            if found.ended:
                return
            if not found.events and not found.made:
                raise UnavailableError(_LOST)
            try:
                found = await self._buffer.listen(name, after)
            except RedisUnavailableError as error:
                raise UnavailableError(_LOST) from error


@contextlib.asynccontextmanager
async def opened(redis: Redis, settings: Settings, vault: Vault, metrics: Metrics) -> AsyncIterator[Streams]:
    """Streams that are all over, and settled, when the context ends."""
    async with Tail.open(settings.redis_url) as tail:
        buffer = Buffer(redis, tail, vault, keep_seconds=settings.resume_seconds)
        streams = Streams(buffer, metrics, grace=settings.resume_seconds, max_bytes=settings.resume_bytes)
        try:
            yield streams
        finally:
            await streams.close()


async def _frames(events: AsyncGenerator[Numbered, None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(events):
        async for number, event in events:
            yield b"id: %d\n%b" % (number, event)


def _without_redis() -> UnavailableError:
    return UnavailableError("streams cannot be found just now", retry_after=1)
