"""One-time tickets for WebSockets: what a page may put into a URL, where a key must never be."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Request, Response

from loam_gateway.adapters.redis import RedisUnavailableError
from loam_gateway.auth import key_digest, public_caller
from loam_gateway.directory.model import Principal
from loam_gateway.state import Deps, State
from loam_shared.errors import InvalidApiKeyError, UnavailableError

router = APIRouter()
_LIFETIME = timedelta(seconds=30)
_PURPOSE = "ticket"


@router.post("/v1/auth/ws-ticket", status_code=201)
async def issue(request: Request, deps: Deps, _caller: Annotated[Principal, Depends(public_caller)]) -> Response:
    """A ticket that opens one WebSocket in place of this key, within 30 seconds."""
    ticket = secrets.token_urlsafe(32)
    sealed = deps.vault.encrypt(key_digest(request).encode(), purpose=_PURPOSE)
    try:
        await deps.redis.execute("SET", _key(ticket), sealed, "PX", round(_LIFETIME.total_seconds() * 1000))
    except RedisUnavailableError as error:
        raise UnavailableError("tickets cannot be made just now", retry_after=1) from error
    body = orjson.dumps({"ticket": ticket, "expiresAt": datetime.now(UTC) + _LIFETIME})
    return Response(body, status_code=201, media_type="application/json", headers={"cache-control": "no-store"})


async def redeemed(ticket: str, deps: State) -> str:
    """The SHA-256 of the key that the ticket stands for; the ticket is used up, at every gateway.

    Raises InvalidApiKeyError, and UnavailableError without Redis.
    """
    try:
        sealed = await deps.redis.execute("GETDEL", _key(ticket))
    except RedisUnavailableError as error:
        raise UnavailableError("tickets cannot be taken just now", retry_after=1) from error
    if sealed is None:
        raise InvalidApiKeyError("the ticket is unknown, used or expired")
    return deps.vault.decrypt(sealed, purpose=_PURPOSE).decode()


def _key(ticket: str) -> str:
    # Who can read Redis should not be able to use what waits there.
    return f"loam:ticket:{hashlib.sha256(ticket.encode()).hexdigest()}"
