"""Internal routes of pipelines: what a pipeline's own ingestion workers call."""

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from loam_gateway.auth import workload
from loam_gateway.directory.model import Principal
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.state import Deps, Runtime, runtime_of
from loam_shared.contracts.internal import Claim, Commit, Inventory, Register, Registered, Renew, Work

router = APIRouter(prefix="/internal/v1/pipelines/{name}/work")
# The listing of a source with 200,000 documents.
_LARGEST_LISTING = 64 * 2**20
_LOOK_ROUND_SECONDS = 1.0


async def _pipeline(caller: Annotated[Principal, Depends(workload)], name: str) -> PipelineId:
    return PipelineId(caller.tenant, name)


Own = Annotated[PipelineId, Depends(_pipeline)]


@router.post("/claim", response_model=Work)
async def claim(
    pipeline: Own, asked: Claim, request: Request, deps: Deps, runtime: Annotated[Runtime, Depends(runtime_of)]
) -> Work | Response:
    """Work under a new lease, or 204. A worker that hangs up, or a gateway that stops, ends the wait."""
    claiming = asyncio.create_task(deps.pipelines.work.claim(pipeline, asked))
    gone = asyncio.create_task(_hung_up(request))
    try:
        while not (claiming.done() or gone.done() or runtime.draining):
            await asyncio.wait({claiming, gone}, timeout=_LOOK_ROUND_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        work = claiming.result() if claiming.done() else None
    finally:
        await _ended(claiming, gone)
    return work or Response(status_code=204)


@router.post("/renew", status_code=204)
async def renew(pipeline: Own, asked: Renew, deps: Deps) -> None:
    """Keep the lease."""
    await deps.pipelines.work.renew(pipeline, asked.epoch)


@router.post("/register", max_body_size=_LARGEST_LISTING)
async def register(pipeline: Own, listing: Register, deps: Deps) -> Registered:
    """Queue what differs between the sources and what is known of them."""
    return await deps.pipelines.work.register(pipeline, listing)


@router.post("/inventory")
async def inventory(pipeline: Own, asked: Renew, deps: Deps) -> Inventory:
    """The documents that the version being built has to hold."""
    return await deps.pipelines.work.inventory(pipeline, asked.epoch)


@router.post("/commit", status_code=204)
async def commit(pipeline: Own, done: Commit, deps: Deps) -> None:
    """End a batch."""
    await deps.pipelines.work.commit(pipeline, done)


async def _hung_up(request: Request) -> None:
    """Return when the caller is gone; its body has been read, so all that can still come is that."""
    await request.receive()


async def _ended(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
