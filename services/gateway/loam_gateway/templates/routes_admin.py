"""Admin route of templates: the operator puts all that a tenant has of its own."""

from fastapi import APIRouter, Depends

from loam_gateway.admin.names import TenantName
from loam_gateway.admin.tenants import Acting
from loam_gateway.auth import operator
from loam_gateway.directory import changes
from loam_gateway.state import Deps
from loam_shared.contracts.templates import TemplatesPut
from loam_shared.errors import InvalidRequestError
from loam_shared.templates import TemplateError, check

router = APIRouter(prefix="/admin/v1/tenants/{tenant}/templates", dependencies=[Depends(operator)])


@router.put("", status_code=204)
async def put(tenant: TenantName, desired: TemplatesPut, deps: Deps, act: Acting) -> None:
    """Make the tenant's templates as desired; what is not among them is gone. 404 without its tenant."""
    _check(desired)
    await changes.put_templates(deps.pool, tenant, desired, act)
    deps.directory.forget()


def _check(desired: TemplatesPut) -> None:
    seen: set[str] = set()
    for place, template in enumerate(desired.templates):
        try:
            check(template)
        except TemplateError as error:
            raise InvalidRequestError(f"{template.label}: {error}", param=f"templates.{place}") from error
        if template.label in seen:
            raise InvalidRequestError(f"{template.label} is there twice", param=f"templates.{place}")
        seen.add(template.label)
