"""``/v1/streams/{id}``: going on with a stream whose connection was lost, or ending it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Response

from loam_gateway.auth import public_caller
from loam_gateway.directory.model import Principal
from loam_gateway.state import Deps
from loam_gateway.streams.opt_in import owner_of

router = APIRouter(prefix="/v1/streams/{stream_id}")
Caller = Annotated[Principal, Depends(public_caller)]
StreamId = Annotated[str, Path(min_length=1, max_length=64)]
LastEvent = Annotated[int, Header(alias="last-event-id", ge=0, le=2**53)]


@router.get("")
async def resume(stream_id: StreamId, deps: Deps, caller: Caller, last_event_id: LastEvent = 0) -> Response:
    """The stream's events after the one that ``Last-Event-ID`` names, and all that follow."""
    return await deps.streams.resume(owner_of(caller), stream_id, last_event_id)


@router.delete("", status_code=204)
async def cancel(stream_id: StreamId, deps: Deps, caller: Caller) -> None:
    """End the stream's call, wherever it is made; what was used is charged."""
    await deps.streams.cancel(owner_of(caller), stream_id)
