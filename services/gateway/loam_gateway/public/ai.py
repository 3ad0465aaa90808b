"""OpenAI's routes: chat completions, embeddings and models."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Request, Response

from loam_gateway.auth import caller_with, public_caller, tenant_of
from loam_gateway.directory.model import Principal
from loam_gateway.metering.serve import serve_chat, serve_embeddings
from loam_gateway.state import Deps

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat_completions(
    request: Request, deps: Deps, caller: Annotated[Principal, Depends(caller_with("ai:complete"))]
) -> Response:
    """A chat completion, or with ``stream: true`` its chunks."""
    return await serve_chat(deps, request, caller)


@router.post("/v1/embeddings")
async def embeddings(
    request: Request, deps: Deps, caller: Annotated[Principal, Depends(caller_with("ai:embed"))]
) -> Response:
    """Vectors for one text or many."""
    return await serve_embeddings(deps, request, caller)


@router.get("/v1/models")
async def models(deps: Deps, caller: Annotated[Principal, Depends(public_caller)]) -> Response:
    """The models that the caller's tenant may use."""
    tenant = await tenant_of(caller, deps)
    known = [await deps.directory.model(name) for name in sorted(tenant.models)]
    data = [
        {"id": model.name, "object": "model", "created": 0, "owned_by": model.provider.lower()}
        for model in known
        if model is not None
    ]
    return Response(orjson.dumps({"object": "list", "data": data}), media_type="application/json")
