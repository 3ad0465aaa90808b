"""The three listeners: public (the one door), internal (what services call) and admin (what the operator calls).

Each is an application of its own, so that no route can leak from one to another and each has its own credentials.
"""

from collections.abc import Iterable

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from loam_gateway.admin import ROUTERS as ADMIN
from loam_gateway.internal import ROUTERS as INTERNAL
from loam_gateway.metrics import CountAnswers
from loam_gateway.public import ROUTERS as PUBLIC
from loam_gateway.state import Runtime
from loam_shared import http


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
    app = FastAPI(title=f"Loam, {listener}", openapi_url=None, max_body_size=runtime.settings.max_body_bytes)
    app.state.runtime = runtime
    http.install(app)
    app.add_middleware(CountAnswers, metrics=runtime.metrics, listener=listener)
    for router in routers:
        app.include_router(router)
    return http.LargeBodiesRefusedInShape(app)
