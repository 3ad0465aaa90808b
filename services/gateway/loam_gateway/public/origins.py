"""Which web pages may call: a browser says with `Origin` which page it acts for, servers and commands say nothing."""

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from loam_gateway.settings import Settings
from loam_shared.errors import ForbiddenError

_METHODS = ("GET", "POST", "PUT", "DELETE")
_FRESH_SECONDS = 600
# A browser shows a page these headers only if it is told to.
_EXPOSED = (
    "retry-after",
    "x-loam-budget-remaining-usd",
    "x-loam-cache",
    "x-loam-cost-usd",
    "x-loam-dropped-params",
    "x-loam-max-tokens",
    "x-loam-model",
    "x-loam-replayed",
    "x-loam-stream-id",
    "x-loam-template",
    "x-request-id",
)


def open_to_pages(app: ASGIApp, settings: Settings) -> ASGIApp:
    """`app` for the pages of the listed origins too (CORS). Without any it is `app` itself, which costs nothing."""
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=sorted(settings.cors_origins),
        allow_methods=_METHODS,
        # Clients' libraries add headers of their own; what counts is the credential, which is never a cookie.
        allow_headers=("*",),
        expose_headers=_EXPOSED,
        max_age=_FRESH_SECONDS,
    )


def check_origin(connection: HTTPConnection, settings: Settings) -> None:
    """Lets pass what comes from no page, from one of the gateway's own origin or from a listed one.

    Raises ForbiddenError. The scheme is not compared with our own, since whoever ends TLS in front of us changes it.
    """
    origin = connection.headers.get("origin")
    if origin is None or origin.lower() in settings.cors_origins:
        return
    _, _, host = origin.partition("://")
    if not host or host.lower() != connection.headers.get("host", "").lower():
        raise ForbiddenError(
            "pages of this origin may not call; the platform's people can list it in LOAM_CORS_ORIGINS"
        )
