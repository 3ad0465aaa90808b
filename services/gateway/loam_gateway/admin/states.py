"""Everything at a glance: what the operator writes into statuses, and what Prometheus scrapes."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from loam_gateway.admin.spending import spending
from loam_gateway.auth import operator
from loam_gateway.metrics import CONTENT_TYPE_LATEST
from loam_gateway.pipelines import catalog
from loam_gateway.state import Deps, Runtime, runtime_of
from loam_shared.contracts.admin import States

router = APIRouter()


@router.get("/admin/v1/states", dependencies=[Depends(operator)], response_model_exclude_none=True)
async def states(deps: Deps) -> States:
    """Spend and alerts of every tenant, and state of every pipeline."""
    return States(
        tenants=await spending(deps.pool),
        pipelines=await catalog.states(deps.pool),
        alerts=await deps.alerts.states(),
    )


@router.get("/metrics")
async def metrics(runtime: Annotated[Runtime, Depends(runtime_of)]) -> Response:
    """For Prometheus. No credential: there is nothing in it but names and figures of the platform."""
    return Response(runtime.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
