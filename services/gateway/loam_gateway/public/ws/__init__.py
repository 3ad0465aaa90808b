"""``GET /ws``: many actions over one WebSocket, each served as its REST twin is."""

import uuid

from fastapi import APIRouter
from starlette.websockets import WebSocket

from loam_gateway.auth import key_owner
from loam_gateway.failures import told_failure
from loam_gateway.public.ws import tickets
from loam_gateway.public.ws.connection import Connection
from loam_gateway.public.ws.door import SUBPROTOCOL, credential_of
from loam_gateway.state import State, state_of
from loam_shared.errors import LoamError
from loam_shared.http import error_response

router = APIRouter()
router.include_router(tickets.router)


@router.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    """A connection, or before it is accepted a refusal over HTTP, in the shape of all errors."""
    try:
        with told_failure():
            deps = await state_of(websocket.app.state.runtime)
            digest = await credential_of(websocket, deps)
            caller = await key_owner(digest, deps)
        with deps.sockets.place(caller.tenant):
            await _serve(websocket, deps, digest)
    except LoamError as error:
        await websocket.send_denial_response(error_response(error, str(uuid.uuid4())))


async def _serve(websocket: WebSocket, deps: State, digest: str) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    await Connection(websocket, deps, digest).serve()
