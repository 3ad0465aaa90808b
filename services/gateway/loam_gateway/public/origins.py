"""Which web pages may call: a browser says with `Origin` which page it acts for, servers and commands say nothing."""

from starlette.requests import HTTPConnection

from loam_gateway.settings import Settings
from loam_shared.errors import ForbiddenError


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
