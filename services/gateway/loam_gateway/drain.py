"""Stopping without hurting anybody: what is under way is brought to its end, what comes anew is sent elsewhere."""

import asyncio

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from loam_gateway.state import Runtime
from loam_shared.errors import UnavailableError
from loam_shared.http import error_response, request_id_of

# Load balancers ask here whether to send more, which deserves the true answer.
_ALWAYS_SERVED = "/v1/health"


class Door:
    """The public listener's outermost layer. It counts what is under way, and shuts when the gateway drains.

    Balancers need a moment to learn that a gateway ends. Callers that they still send here get a 503 and
    ``Connection: close``, at which they connect anew, to another gateway, instead of a connection refused.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime
        self._under_way = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let requests in, or not any more."""
        if self._runtime.draining and scope["path"] != _ALWAYS_SERVED:
            await self._refuse(scope, receive, send)
            return
        self._under_way += 1
        self._empty.clear()
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._empty.set()

    async def emptied(self, seconds: float) -> bool:
        """Wait until nothing is under way, for at most `seconds` seconds; whether that came."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = UnavailableError("this gateway is shutting down; connect again", retry_after=1)
        response = error_response(error, request_id_of(HTTPConnection(scope)))
        response.headers["connection"] = "close"
        await response(scope, receive, send)
