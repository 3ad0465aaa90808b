"""``GET /v1/health``: liveness, and the state of each dependency."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Annotated

import asyncpg
import orjson
from fastapi import APIRouter, Depends, Response

from loam_gateway.adapters.redis import RedisUnavailableError
from loam_gateway.state import Runtime, runtime_of
from loam_shared.errors import LoamError

router = APIRouter()
_PATIENCE_SECONDS = 2.0


@router.get("/v1/health")
async def health(runtime: Annotated[Runtime, Depends(runtime_of)]) -> Response:
    """200 when requests can be served, 503 with the reason when they cannot. Without Redis it is 200, but degraded."""
    if runtime.state is None or runtime.draining:
        return _answer(503, {"status": "unavailable", "reason": runtime.reason})
    state = runtime.state
    postgres, redis, storage = await asyncio.gather(
        _state_of(state.pool.fetchval("SELECT 1")),
        _state_of(state.limits.ping()),
        _state_of(state.storage.objects.ensure_bucket()),
    )
    dependencies = {"postgres": postgres, "redis": redis, "storage": storage}
    if postgres != "ok":
        body = {"status": "unavailable", "reason": f"PostgreSQL: {postgres}", "dependencies": dependencies}
        return _answer(503, body)
    degraded = any(found != "ok" for found in dependencies.values())
    return _answer(200, {"status": "degraded" if degraded else "ok", "dependencies": dependencies})


async def _state_of(probe: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await probe
    except TimeoutError:
        return "no answer in time"
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisUnavailableError, LoamError) as error:
        return f"unavailable: {error}"
    return "ok"


def _answer(status: int, body: Mapping[str, object]) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
