"""``GET /v1/health``: liveness, and the state of each dependency."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Annotated

import asyncpg
import orjson
from fastapi import APIRouter, Depends, Response

from loam_gateway.adapters.redis import RedisUnavailableError
from loam_gateway.state import Runtime, State, runtime_of
from loam_shared.errors import LoamError

router = APIRouter()
_PATIENCE_SECONDS = 2.0
_FRESH_SECONDS = 0.5


@router.get("/v1/health")
async def health(runtime: Annotated[Runtime, Depends(runtime_of)]) -> Response:
    """200 when requests can be served, 503 with the reason when they cannot. Without Redis it is 200, but degraded."""
    if runtime.state is None or runtime.draining:
        return _answer(503, {"status": "unavailable", "reason": runtime.reason})
    now = asyncio.get_running_loop().time()
    if runtime.probed is None or runtime.probed[0] < now - _FRESH_SECONDS:
        runtime.probed = (now, asyncio.create_task(_probe(runtime.state)))
    dependencies = await asyncio.shield(runtime.probed[1])
    if dependencies["postgres"] != "ok":
        reason = f"PostgreSQL: {dependencies['postgres']}"
        return _answer(503, {"status": "unavailable", "reason": reason, "dependencies": dependencies})
    degraded = any(found != "ok" for found in dependencies.values())
    return _answer(200, {"status": "degraded" if degraded else "ok", "dependencies": dependencies})


async def _probe(state: State) -> dict[str, str]:
    """Asked without a credential, so it is done once a moment, however many ask."""
    postgres, redis, storage = await asyncio.gather(
        _state_of(state.pool.fetchval("SELECT 1")),
        _state_of(state.redis.execute("PING")),
        _state_of(state.storage.objects.ensure_bucket()),
    )
    return {"postgres": postgres, "redis": redis, "storage": storage}


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
