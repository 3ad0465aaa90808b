"""The short way to a route: what costs is served without FastAPI's machinery.

FastAPI solves dependencies, counts bytes of bodies and renders errors in a dozen nested layers, which together cost
about as much as a whole metered call. A route of the gateway that wants nothing but the request, the state and the
caller is therefore called directly, declared as it is for FastAPI, with the same errors, request ids and metrics.

What is anything but plain goes the long way: a body of unknown or of too great a length, and every request when traces
are on, for FastAPI makes their spans.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, cast, get_type_hints

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.params import Depends
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from loam_gateway.failures import FAILURES
from loam_gateway.state import Runtime, state_of
from loam_shared import telemetry
from loam_shared.errors import LoamError
from loam_shared.http import REQUEST_ID, request_id_in

_ANSWERED: tuple[type[Exception], ...] = (LoamError, HTTPException, ClientDisconnect, *FAILURES)
_PARAMETERS = {"request", "deps", "caller"}

Handler = Callable[[Request, Runtime], Awaitable[Response]]
Teller = Callable[[Request, Exception], Awaitable[Response]]


def with_short_way(long: ASGIApp, app: FastAPI, routers: Iterable[APIRouter], runtime: Runtime, name: str) -> ASGIApp:
    """`long`, which wraps `app`, and before it the short way to those routes of `routers` that can take it.

    `name` is the listener's, for metrics.
    """
    handlers = {} if telemetry.on() else dict(_handlers(routers))
    short = _ShortWay(long, app, handlers, runtime, name)
    return ServerErrorMiddleware(short, handler=app.exception_handlers[Exception])


class _ShortWay:
    """Serves requests to `handlers`, by method and path, itself."""

    def __init__(
        self, long: ASGIApp, app: FastAPI, handlers: dict[tuple[str, str], Handler], runtime: Runtime, name: str
    ) -> None:
        self._long = long
        self._app = app
        self._handlers = handlers
        self._runtime = runtime
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handler is None or not self._fits(scope):
            await self._long(scope, receive, send)
            return
        request_id = request_id_in(scope)
        scope["app"] = self._app
        response = await self._answered(handler, Request(scope, receive, send))
        response.headers.setdefault(REQUEST_ID, request_id)
        self._runtime.metrics.answered(self._name, scope["path"], response.status_code)
        with self._runtime.metrics.under_way(response.raw_headers):
            await response(scope, receive, send)

    async def _answered(self, handler: Handler, request: Request) -> Response:
        try:
            return await handler(request, self._runtime)
        except _ANSWERED as error:
            tellers = cast("Mapping[Any, Teller]", self._app.exception_handlers)
            return await next(tellers[kind] for kind in type(error).__mro__ if kind in tellers)(request, error)

    def _fits(self, scope: Scope) -> bool:
        """Whether the body is known to be no longer than it may be; the server holds it to the length that it says."""
        length = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        return length is not None and int(length) <= self._runtime.settings.max_body_bytes


def _handlers(routers: Iterable[APIRouter]) -> Iterator[tuple[tuple[str, str], Handler]]:
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and (handler := _handler(route.endpoint)):
                yield from (((method, route.path), handler) for method in route.methods or ())


def _handler(endpoint: Callable[..., Any]) -> Handler | None:
    """`endpoint` with its caller found as its signature says; None for one that wants something else besides."""
    hints = get_type_hints(endpoint, include_extras=True)
    if hints.keys() - {"return"} != _PARAMETERS:
        return None
    [find] = [each.dependency for each in hints["caller"].__metadata__ if isinstance(each, Depends) and each.dependency]

    async def handle(request: Request, runtime: Runtime) -> Response:
        deps = await state_of(runtime)
        caller = await find(request, deps)
        answer: Callable[[], Awaitable[Response]] = partial(endpoint, request=request, deps=deps, caller=caller)
        if request.method != "POST":
            return await answer()
        # What costs, or creates, waits for its tenant's turn once all of it is there: nobody waits for a slow sender.
        await request.body()
        async with deps.fair_queue.slot(caller.tenant) as request.state.slot:
            return await answer()

    return handle
