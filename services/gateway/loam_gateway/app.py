"""The three listeners: public (the one door), internal (what services call) and admin (what the operator calls).

Each is an application of its own, so that no route can leak from one to another and each has its own credentials.
"""

from collections.abc import Iterable

import asyncpg
import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import ASGIApp

from loam_gateway.adapters import postgres
from loam_gateway.admin import ROUTERS as ADMIN
from loam_gateway.internal import ROUTERS as INTERNAL
from loam_gateway.metrics import CountAnswers
from loam_gateway.public import ROUTERS as PUBLIC
from loam_gateway.state import Runtime
from loam_shared import http, telemetry
from loam_shared.errors import InvalidRequestError, UnavailableError

_log = structlog.get_logger()


def public(runtime: Runtime) -> ASGIApp:
    """What callers reach with their API keys."""
    return _app("public", PUBLIC, runtime)


def internal(runtime: Runtime) -> ASGIApp:
    """What services and tenants' pods reach, from within the cluster."""
    return _app("internal", INTERNAL, runtime)


def admin(runtime: Runtime) -> ASGIApp:
    """What the operator reaches."""
    return _app("admin", ADMIN, runtime)


def _app(listener: str, routers: Iterable[APIRouter], runtime: Runtime) -> ASGIApp:
    # A route that takes larger bodies than the setting says so with `max_body_size` of its own.
    app = FastAPI(
        title=f"Loam, {listener}",
        openapi_url=None,
        max_body_size=runtime.settings.max_body_bytes,
        telemetry=telemetry.http_config(),
    )
    app.state.runtime = runtime
    http.install(app)
    app.add_exception_handler(asyncpg.DataError, _answer_unstorable)
    for failure in postgres.FAILURES:
        app.add_exception_handler(failure, _answer_away)
    app.add_middleware(CountAnswers, metrics=runtime.metrics, listener=listener)
    for router in routers:
        app.include_router(router)
    return http.LargeBodiesRefusedInShape(app)


async def _answer_away(request: Request, error: Exception) -> Response:
    """PostgreSQL is away, starting, stopping or out of room: the caller's turn to wait, not our mistake."""
    if not postgres.is_transient(error):
        raise error
    request_id = http.request_id_of(request)
    _log.warning("PostgreSQL cannot serve", path=request.url.path, request_id=request_id, reason=repr(error))
    return http.error_response(UnavailableError("the database cannot serve this just now", retry_after=2), request_id)


async def _answer_unstorable(request: Request, error: Exception) -> Response:
    """What PostgreSQL has no place for: a U+0000 in a text, a number or a moment beyond its types."""
    request_id = http.request_id_of(request)
    _log.warning("unstorable value", path=request.url.path, request_id=request_id, error=str(error))
    refusal = InvalidRequestError("a value of the request cannot be kept: a text with U+0000, or one out of range")
    return http.error_response(refusal, request_id)
