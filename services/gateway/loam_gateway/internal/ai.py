"""What services call on a caller's behalf, and pipelines' pods on their own."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Request, Response
from joserfc.jwk import KeySet

from loam_gateway.auth import internal_caller
from loam_gateway.directory.model import Principal
from loam_gateway.metering.serve import serve_chat, serve_embeddings, serve_rerank
from loam_gateway.state import Deps

router = APIRouter(prefix="/internal/v1")


@router.get("/jwks")
async def jwks(deps: Deps) -> Response:
    """The public keys that caller tokens are signed with."""
    keys = KeySet([deps.signing_key]).as_dict(private=False)
    return Response(orjson.dumps(keys), media_type="application/json")


@router.post("/chat/completions")
async def chat_completions(
    request: Request, deps: Deps, caller: Annotated[Principal, Depends(internal_caller)]
) -> Response:
    """As the public one; a stream always ends with its usage."""
    return await serve_chat(deps, request, caller)


@router.post("/embeddings")
async def embeddings(request: Request, deps: Deps, caller: Annotated[Principal, Depends(internal_caller)]) -> Response:
    """As the public one."""
    return await serve_embeddings(deps, request, caller)


@router.post("/rerank")
async def rerank(request: Request, deps: Deps, caller: Annotated[Principal, Depends(internal_caller)]) -> Response:
    """``{model, query, documents, top_n?}`` → ``{results: [{index, relevance_score}], usage}``, the best first."""
    return await serve_rerank(deps, request, caller)
