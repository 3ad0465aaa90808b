"""Models: what callers may name, and what it costs."""

from fastapi import APIRouter, Depends

from loam_gateway.admin.names import ModelName
from loam_gateway.admin.tenants import Acting
from loam_gateway.auth import operator
from loam_gateway.directory import changes, queries
from loam_gateway.state import Deps
from loam_shared.contracts.admin import ModelPut
from loam_shared.errors import InvalidRequestError

router = APIRouter(prefix="/admin/v1/models/{name}", dependencies=[Depends(operator)])


@router.put("", status_code=204)
async def put(name: ModelName, desired: ModelPut, deps: Deps, act: Acting) -> None:
    """Make the model as desired. 409 when it belongs to another ModelRoute."""
    try:
        queries.price_list(desired)
    except ValueError as error:
        raise InvalidRequestError(f"price: {error}", param="price") from error
    await changes.put_model(deps.pool, deps.vault, name, desired, act)
    deps.directory.forget()


@router.delete("", status_code=204)
async def delete(name: ModelName, deps: Deps, act: Acting) -> None:
    """Take the model away; entries that name it stay."""
    await changes.delete_model(deps.pool, name, act)
    deps.directory.forget()
