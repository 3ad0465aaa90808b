"""Admin routes of pipelines: the operator puts them, asks how far they are, and takes them away."""

from typing import Annotated

from fastapi import APIRouter, Depends

from loam_gateway.admin.names import PipelineName, TenantName
from loam_gateway.admin.tenants import Acting
from loam_gateway.auth import operator
from loam_gateway.pipelines import catalog, manifests, purge
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.state import Deps
from loam_shared.contracts.admin import PipelinePut, PipelineState, Purge

router = APIRouter(prefix="/admin/v1/tenants/{tenant}/pipelines/{name}", dependencies=[Depends(operator)])


async def _pipeline(tenant: TenantName, name: PipelineName) -> PipelineId:
    return PipelineId(tenant, name)


Addressed = Annotated[PipelineId, Depends(_pipeline)]


@router.put("")
async def put(pipeline: Addressed, desired: PipelinePut, deps: Deps, act: Acting) -> PipelineState:
    """Make the pipeline as desired."""
    return await manifests.put(deps.pool, pipeline, desired, act)


@router.get("")
async def show(pipeline: Addressed, deps: Deps) -> PipelineState:
    """How far the pipeline is."""
    return await catalog.state(deps.pool, pipeline)


@router.delete("")
async def delete(pipeline: Addressed, uid: str, deps: Deps, act: Acting) -> Purge:
    """Delete the pipeline and all its data, some of it with each call."""
    return Purge(done=await purge.purge(deps.pool, deps.storage, pipeline, act, uid=uid))
