"""Tenants: what they may use, their caps, their storage, and their end."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request

from loam_gateway.admin.names import TenantName
from loam_gateway.admin.spending import spending
from loam_gateway.auth import operator
from loam_gateway.directory import changes, queries
from loam_gateway.directory.caps import check_amounts
from loam_gateway.directory.changes import Act
from loam_gateway.state import Deps, State
from loam_shared.contracts.admin import Purge, StorageGrant, TenantPut, TenantState
from loam_shared.errors import NotFoundError
from loam_shared.http import request_id_of

router = APIRouter(prefix="/admin/v1/tenants/{tenant}", dependencies=[Depends(operator)])


async def act_of(request: Request) -> Act:
    """The operator's act in `request`, for the audit log."""
    return Act("operator", request_id_of(request))


Acting = Annotated[Act, Depends(act_of)]


@router.put("", response_model_exclude_none=True)
async def put(tenant: TenantName, desired: TenantPut, deps: Deps, act: Acting) -> TenantState:
    """Make the tenant as desired. 409 when another Tenant of that name has it, or has left data under it."""
    check_amounts(desired)
    grant = await _provision(deps, tenant, desired)
    if await changes.put_tenant(deps.pool, deps.vault, tenant, desired, act):
        await deps.alerts.retry(tenant)
    deps.directory.forget()
    return await _state(deps, tenant, desired, grant)


@router.get("", response_model_exclude_none=True)
async def show(tenant: TenantName, deps: Deps) -> TenantState:
    """The tenant's storage and spend."""
    desired = await queries.tenant_put(deps.pool, tenant)
    if desired is None:
        raise NotFoundError(f"there is no tenant {tenant}")
    return await _state(deps, tenant, desired, await _provision(deps, tenant, desired))


@router.delete("")
async def delete(
    tenant: TenantName, uid: str, policy: Annotated[Literal["Retain", "Delete"], Query()], deps: Deps, act: Acting
) -> Purge:
    """End the tenant; called again until all is done."""
    await changes.end_tenant(deps.pool, tenant, uid, act)
    deps.directory.forget()
    return Purge(done=await deps.storage.purge(tenant, uid=uid, policy=policy))


async def _provision(deps: State, tenant: str, desired: TenantPut) -> StorageGrant:
    return await deps.storage.provision(
        tenant, uid=desired.uid, source_buckets=desired.source_buckets, adopt=desired.adopt
    )


async def _state(deps: State, tenant: str, desired: TenantPut, grant: StorageGrant) -> TenantState:
    spend = await spending(deps.pool, tenant)
    unknown = await queries.unknown_models(deps.pool, desired.models)
    alerts = await deps.alerts.states(tenant)
    return TenantState(storage=grant, spend=spend[tenant], alerts=alerts[tenant], unknown_models=unknown)
