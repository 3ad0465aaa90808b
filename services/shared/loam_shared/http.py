"""What every HTTP service does the same way: request ids and the one shape of errors."""

import re
import uuid

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loam_shared import errors

REQUEST_ID = "x-request-id"
_HEADER = REQUEST_ID.encode()
_ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
_log = structlog.get_logger()

_BY_STATUS: dict[int, type[errors.LoamError]] = {
    401: errors.InvalidApiKeyError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    413: errors.TooLargeError,
}


def install(app: FastAPI) -> None:
    """Give `app` request ids and error answers of the contract's shape."""
    app.add_middleware(_RequestIds)
    app.add_exception_handler(errors.LoamError, _answer_loam_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(Exception, _answer_unexpected)


def error_response(error: errors.LoamError, request_id: str) -> Response:
    """`error` as an HTTP answer, with Retry-After where it says when to come back."""
    headers = {REQUEST_ID: request_id}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = orjson.dumps(errors.render(error, request_id))
    return Response(body, status_code=error.status, headers=headers, media_type="application/json")


def request_id_of(request: HTTPConnection) -> str:
    """The id that the middleware gave this request."""
    return str(getattr(request.state, "request_id", "")) or str(uuid.uuid4())


class LargeBodiesRefusedInShape:
    """Wraps a whole application whose body limit is FastAPI's: that refuses in plain text, after all middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but for such a refusal."""
        refused = False

        async def shaped(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 413:
                refused = MutableHeaders(scope=message).get("content-type", "").startswith("text/plain")
            if not refused:
                await send(message)
            elif message["type"] == "http.response.body":
                error = errors.TooLargeError("the request's body is larger than this route takes")
                await error_response(error, request_id_of(Request(scope)))(scope, receive, send)

        await self._app(scope, receive, shaped)


class _RequestIds:
    """Takes the caller's request id where it is one, makes one otherwise, and puts it on the answer.

    Plain ASGI, because a wrapper around requests and responses would hide the client's hanging up from the route.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_in(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault(REQUEST_ID, request_id)
            await send(message)

        await self._app(scope, receive, send_with_id)


def request_id_in(scope: Scope) -> str:
    """The id of the request with this scope, as the caller gave it or made anew; the scope then has it too."""
    request_id = _given_id(scope) or str(uuid.uuid4())
    scope.setdefault("state", {})["request_id"] = request_id
    return request_id


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == _HEADER and _ACCEPTABLE_ID.fullmatch(value):
            return str(value, "ascii")
    return None


async def _answer_loam_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.LoamError)
    return error_response(error, request_id_of(request))


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # The first element of a location says where in the request it lies (body, query, path), which is noise to a caller.
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    message = f"{param}: {first['msg']}" if param else str(first["msg"])
    return error_response(errors.InvalidRequestError(message, param=param), request_id_of(request))


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code, errors.InvalidRequestError)
    response = error_response(kind(str(error.detail)), request_id_of(request))
    response.status_code = error.status_code
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["allow"] = ", ".join(_allowed(request))
    return response


def _allowed(request: Request) -> list[str]:
    """All methods of the path: Starlette names those of the first route that has it, which is one of several."""
    routes: list[BaseRoute] = request.app.routes
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    return [m for m, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    # The caller hung up before its request was complete: 499, as proxies log it, is sent to a closed connection.
    return Response(status_code=499)


async def _answer_unexpected(request: Request, error: Exception) -> Response:
    request_id = request_id_of(request)
    _log.error("unexpected error", path=request.url.path, request_id=request_id, exc_info=error)
    return error_response(
        errors.LoamError("something went wrong on our side; the requestId helps us find it"), request_id
    )
