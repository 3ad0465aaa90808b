"""One answer under way that may be listened to again: made once, whoever listens."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import structlog
from fastapi import Response

from loam_gateway.adapters.redis import RedisUnavailableError
from loam_gateway.sse import EventStream, error_frame
from loam_gateway.streams.buffer import LOOK_SECONDS, Buffer, Heard, Name
from loam_gateway.streams.reel import Numbered, Reel
from loam_shared.errors import LoamError, UnavailableError

Make = Callable[[], Awaitable[Response]]
"""What gives the answer: everything that a request without resuming would do."""

_LAST_TRIES = 3
_BY_MISTAKE = LoamError("something went wrong on our side; the requestId helps us find it")
_log = structlog.get_logger()


class Making:
    """Runs `make` to its end in a task of its own, and keeps its events for those who listen here and elsewhere.

    It is ended early when it is stopped, and when nobody has listened for `grace` seconds; the provider's call ends
    and is settled with it.
    """

    def __init__(self, name: Name, buffer: Buffer, *, request_id: str, grace: float, max_bytes: int) -> None:
        self.name = name
        self._buffer = buffer
        self._request_id = request_id
        self._grace = grace
        self._reel = Reel(max_bytes)
        self._news = asyncio.Event()
        self._ended = False
        self._cut_for: LoamError | None = None
        self._listeners = 0
        self._unheard_since = _now()
        self._task: asyncio.Task[None] | None = None

    async def begin(self, make: Make) -> Response:
        """The answer as `make` begins it: its headers are known, its events are not sent. Raises what `make` raises."""
        begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(make, begun))
        waited: set[asyncio.Future[Any]] = {self._task, begun}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop(UnavailableError("nobody waited for this stream"))
            raise
        if not begun.done():
            self._task.result()
        response: Response = begun.result()
        return response

    async def run(self) -> None:
        """Keep the events in Redis until the end, and end what nobody listens to."""
        assert self._task is not None
        try:
            await self._look_after()
        finally:
            await self.stop(_BY_MISTAKE)
        if not self._task.cancelled() and (mistake := self._task.exception()):
            _log.error("unexpected error in a stream", request_id=self._request_id, exc_info=mistake)

    async def events(self, after: int) -> AsyncGenerator[Numbered, None]:
        """The events after `after`, until the end. Raises NotFoundError for a listener who fell too far behind."""
        self._listeners += 1
        try:
            while True:
                news = self._news
                for number, event in self._reel.after(after):
                    yield number, event
                    after = number
                if self._ended and after >= self._reel.last:
                    return
                if after >= self._reel.last:
                    await news.wait()
        finally:
            self._listeners -= 1
            self._unheard_since = _now()

    async def stop(self, why: LoamError) -> None:
        """End the call now; listeners hear why. It is settled when this returns."""
        assert self._task is not None
        self._cut(why)
        await asyncio.wait([self._task])

    def _cut(self, why: LoamError) -> None:
        # Only once: a second cancellation would break into the settlement.
        if self._cut_for is None and self._task is not None:
            self._cut_for = why
            self._task.cancel()

    async def _run(self, make: Make, begun: "asyncio.Future[Any]") -> None:
        complete = False
        try:
            response = await make()
            begun.set_result(response)
            if isinstance(response, EventStream):
                async with contextlib.aclosing(response.events(self._request_id)) as events:
                    async for event in events:
                        self._add(event)
            complete = True
        finally:
            if not complete and begun.done():
                self._add(error_frame(self._cut_for or _BY_MISTAKE, self._request_id))
            self._ended = True
            self._tell()

    def _add(self, event: bytes) -> None:
        self._reel.add(event)
        self._tell()

    def _tell(self) -> None:
        told, self._news = self._news, asyncio.Event()
        told.set()

    async def _look_after(self) -> None:
        written, tries = 0, _LAST_TRIES
        while tries:
            news, ended, last = self._news, self._ended, self._reel.last
            try:
                self._heed(await self._write(written, end=ended))
                written = last
            except RedisUnavailableError as error:
                tries -= ended
                _log.warning("a stream cannot be kept for resuming", request_id=self._request_id, reason=str(error))
                await asyncio.sleep(LOOK_SECONDS)
                continue
            if ended:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), min(LOOK_SECONDS, self._grace / 4))

    async def _write(self, written: int, *, end: bool) -> Heard:
        oldest = self._reel.first
        new = self._reel.after(max(written, oldest - 1))
        return await self._buffer.append(self.name, new, oldest=oldest, next_number=self._reel.last + 1, end=end)

    def _heed(self, heard: Heard) -> None:
        if self._listeners or heard.listener:
            self._unheard_since = _now()
        if heard.cancel:
            self._cut(UnavailableError("this stream was cancelled"))
        elif _now() - self._unheard_since > self._grace:
            self._cut(UnavailableError(f"nobody listened to this stream for {self._grace:g} s"))


def _now() -> float:
    return asyncio.get_running_loop().time()
