"""``GET /v1/health``: liveness, and the state of each dependency."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Response

from loam_gateway.state import Runtime, runtime_of

router = APIRouter()


@router.get("/v1/health")
async def health(runtime: Annotated[Runtime, Depends(runtime_of)]) -> Response:
    """200 when it can serve, 503 with the reason when it cannot."""
    if runtime.state is None or runtime.draining:
        return _answer(503, {"status": "unavailable", "reason": runtime.reason})
    return _answer(200, {"status": "ok"})


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
