"""Who may open a WebSocket: looked at once, before it is accepted."""

from starlette.websockets import WebSocket

from loam_gateway.auth import key_digest
from loam_gateway.public.origins import check_origin
from loam_gateway.public.ws.tickets import redeemed
from loam_gateway.state import State
from loam_shared.credentials import hash_api_key

SUBPROTOCOL = "bearer"
"""What a browser names before its key, for it cannot send headers; the server answers with it, never with the key."""


async def credential_of(websocket: WebSocket, deps: State) -> str:
    """The SHA-256 of the key that opens `websocket`: from a ticket, a subprotocol or the header `Authorization`.

    Raises InvalidApiKeyError, ForbiddenError for a page that may not call, UnavailableError for a ticket without Redis.
    """
    check_origin(websocket, deps.settings)
    if ticket := websocket.query_params.get("ticket"):
        return await redeemed(ticket, deps)
    match websocket.scope["subprotocols"]:
        case [scheme, key] if scheme.lower() == SUBPROTOCOL:
            return hash_api_key(key)
        case _:
            return key_digest(websocket)
