"""Keys that the operator makes."""

from fastapi import APIRouter, Depends

from loam_gateway.admin.names import KeyId, TenantName
from loam_gateway.admin.tenants import Acting
from loam_gateway.auth import operator
from loam_gateway.directory import changes, queries
from loam_gateway.state import Deps
from loam_shared.contracts.admin import KeyPut
from loam_shared.errors import NotFoundError

router = APIRouter(prefix="/admin/v1/tenants/{tenant}/keys/{key_id}", dependencies=[Depends(operator)])


@router.put("", status_code=204)
async def put(tenant: TenantName, key_id: KeyId, desired: KeyPut, deps: Deps, act: Acting) -> None:
    """Make the key as desired. 404 without its tenant, 409 when a hash is another key's."""
    if await queries.tenant_put(deps.pool, tenant) is None:
        raise NotFoundError(f"there is no tenant {tenant}")
    async with changes.changing(deps.pool) as connection:
        await changes.put_key(connection, tenant, key_id, desired, act)
    deps.directory.forget()


@router.delete("", status_code=204)
async def delete(tenant: TenantName, key_id: KeyId, deps: Deps, act: Acting) -> None:
    """Revoke the key, if it is there."""
    await changes.revoke_key(deps.pool, tenant, key_id, act)
    deps.directory.forget()
