"""Public route of templates: what a call may name."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Response

from loam_gateway.auth import public_caller
from loam_gateway.directory.model import Principal
from loam_gateway.state import Deps
from loam_shared.contracts.templates import PromptTemplate

router = APIRouter()


@router.get("/v1/templates")
async def templates(deps: Deps, caller: Annotated[Principal, Depends(public_caller)]) -> Response:
    """All versions of the templates that the caller's tenant may name: its own, and the platform's beside them."""
    found = [_shown(owner, template) for owner, template in await deps.templates.all(caller.tenant)]
    return Response(orjson.dumps({"templates": found}), media_type="application/json")


def _shown(owner: str, template: PromptTemplate) -> dict[str, Any]:
    """What a caller needs to know; the prompt's own words are its author's."""
    shown = template.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"messages"})
    return shown | {"owner": owner}
