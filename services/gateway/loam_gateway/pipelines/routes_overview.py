"""Public routes that show which pipelines there are and how they are."""

from typing import Annotated

from fastapi import APIRouter, Depends

from loam_gateway.auth import caller_with
from loam_gateway.directory.model import Principal
from loam_gateway.pipelines import overview
from loam_gateway.pipelines.model import PipelineId
from loam_gateway.state import Deps
from loam_shared.contracts import Wire

router = APIRouter(prefix="/v1/pipelines")


class Pipelines(Wire):
    """The tenant's pipelines, by name."""

    pipelines: tuple[overview.PipelineOverview, ...]


@router.get("", response_model_exclude_none=True)
async def list_pipelines(caller: Annotated[Principal, Depends(caller_with("rag:query"))], deps: Deps) -> Pipelines:
    """Every pipeline, and how far it is."""
    return Pipelines(pipelines=tuple(await overview.overviews(deps.pool, caller.tenant)))


@router.get("/{name}", response_model_exclude_none=True)
async def show_pipeline(
    caller: Annotated[Principal, Depends(caller_with("rag:write"))], name: str, deps: Deps
) -> overview.PipelineDetails:
    """One pipeline: how far it is, and which of its documents could not be read."""
    return await overview.details(deps.pool, PipelineId(caller.tenant, name))
