"""The three listeners: public (the one door), internal (what services call) and admin (what the operator calls).

Each is an application of its own, so that no route can leak from one to another and each has its own credentials.
"""

from collections.abc import Sequence

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import ASGIApp

from loam_gateway.admin import ROUTERS as ADMIN
from loam_gateway.drain import Door
from loam_gateway.failures import FAILURES, failure_of
from loam_gateway.internal import ROUTERS as INTERNAL
from loam_gateway.metering.traces import AnswersInTraces
from loam_gateway.metrics import CountAnswers
from loam_gateway.public import ROUTERS as PUBLIC
from loam_gateway.public.origins import open_to_pages
from loam_gateway.short import with_short_way
from loam_gateway.state import Runtime
from loam_shared import http, telemetry

_log = structlog.get_logger()


def public(runtime: Runtime) -> Door:
    """What callers reach with their API keys."""
    return Door(open_to_pages(_app("public", PUBLIC, runtime), runtime.settings), runtime)


def internal(runtime: Runtime) -> ASGIApp:
    """What services and tenants' pods reach, from within the cluster."""
    return _app("internal", INTERNAL, runtime)


def admin(runtime: Runtime) -> ASGIApp:
    """What the operator reaches."""
    return _app("admin", ADMIN, runtime)


def _app(listener: str, routers: Sequence[APIRouter], runtime: Runtime) -> ASGIApp:
    # A route that takes larger bodies than the setting says so with `max_body_size` of its own.
    app = FastAPI(
        title=f"Loam, {listener}",
        openapi_url=None,
        max_body_size=runtime.settings.max_body_bytes,
        telemetry=telemetry.http_config(),
    )
    app.state.runtime = runtime
    http.install(app)
    for failure in FAILURES:
        app.add_exception_handler(failure, _answer_failure)
    if telemetry.on():
        app.add_middleware(AnswersInTraces)
    app.add_middleware(CountAnswers, metrics=runtime.metrics, listener=listener)
    for router in routers:
        app.include_router(router)
    return with_short_way(http.LargeBodiesRefusedInShape(app), app, routers, runtime, listener)


async def _answer_failure(request: Request, error: Exception) -> Response:
    told = failure_of(error)
    if told is None:
        raise error
    request_id = http.request_id_of(request)
    _log.warning("PostgreSQL cannot serve this", path=request.url.path, request_id=request_id, reason=repr(error))
    return http.error_response(told, request_id)
