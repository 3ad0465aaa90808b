"""Server-sent events on their way out, and what happens when nobody listens any more."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from loam_shared import errors


def frame(data: Any, event: str | None = None) -> bytes:
    """One event with JSON as its data."""
    named = b"" if event is None else b"event: %b\n" % event.encode()
    return b"%bdata: %b\n\n" % (named, orjson.dumps(data))


def error_frame(error: errors.LoamError, request_id: str) -> bytes:
    """The event that ends a stream which failed after its first byte."""
    return frame(errors.render(error, request_id), event="error")


class EventStream(Response):
    """Sends `first` and then what comes out of `frames`, and always closes it: also when the client has hung up.

    A LoamError on the way becomes an ``error`` event, for the status is long sent. Starlette's own streaming response
    leaves an abandoned generator to the garbage collector; here its end, and the settlement in it, is awaited.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, frames: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"} | dict(headers))
        del self.headers["content-length"]
        self._first = first
        self._frames = frames

    async def events(self, request_id: str) -> AsyncGenerator[bytes, None]:
        """Everything that is to be sent, once. Closing it before its end ends what makes the events, and waits for it.

        It has to be read in the task that made this response: limits of time belong to a task.
        """
        try:
            if self._first:
                yield self._first
            async for data in self._frames:
                yield data
        except errors.LoamError as error:
            yield error_frame(error, request_id)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End what makes the events, if it has not ended by itself."""
        await self._frames.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or as much as the client wants."""
        task, hung_up = asyncio.current_task(), False
        assert task is not None

        async def watch() -> None:
            nonlocal hung_up
            while (await receive())["type"] != "http.disconnect":
                pass
            hung_up = True
            task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            await self._send(scope, send)
        except asyncio.CancelledError:
            if not hung_up:
                raise
            task.uncancel()
        finally:
            watcher.cancel()
            await self.aclose()

    async def _send(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self.events(str(scope.get("state", {}).get("request_id", "")))) as events:
            async for data in events:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
