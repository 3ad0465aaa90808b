"""``GET /v1/health``: whether requests can be served, and the state of each dependency.

Asked without a credential, so the answer names what is away and no address, and the dependencies are asked once a
moment, however many ask. Why something is away is in the log.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Annotated

import asyncpg
import orjson
import structlog
from fastapi import APIRouter, Depends, Query, Response

from loam_gateway.adapters.redis import RedisUnavailableError
from loam_gateway.state import Runtime, State, runtime_of
from loam_shared.errors import LoamError

router = APIRouter()
_log = structlog.get_logger()
_PATIENCE_SECONDS = 2.0
_FRESH_SECONDS = 0.5


@router.get("/v1/health")
async def health(
    runtime: Annotated[Runtime, Depends(runtime_of)],
    live: Annotated[bool, Query(description="Ask only whether the process lives, whatever is away.")] = False,
) -> Response:
    """200 when requests can be served, 503 when they cannot: starting, draining, or without PostgreSQL.

    Without Redis or the object store it is 200, but degraded. With `live=true` it is always 200, for liveness probes:
    restarting the gateway brings no database back.
    """
    if live:
        return _answer(200, {"status": "ok"})
    if runtime.state is None or runtime.draining:
        return _answer(503, {"status": "unavailable", "reason": runtime.reason})
    now = asyncio.get_running_loop().time()
    if runtime.probed is None or runtime.probed[0] < now - _FRESH_SECONDS:
        runtime.probed = (now, asyncio.create_task(_probe(runtime.state)))
    dependencies = await asyncio.shield(runtime.probed[1])
    if dependencies["postgres"] != "ok":
        return _answer(
            503, {"status": "unavailable", "reason": "PostgreSQL does not answer", "dependencies": dependencies}
        )
    degraded = any(found not in {"ok", "unknown"} for found in dependencies.values())
    return _answer(200, {"status": "degraded" if degraded else "ok", "dependencies": dependencies})


async def _probe(state: State) -> dict[str, str]:
    postgres, redis, storage = await asyncio.gather(
        _state_of("postgres", state.pool.fetchval("SELECT 1")),
        _state_of("redis", state.redis.execute("PING")),
        _state_of("storage", state.storage.objects.ensure_bucket()),
    )
    return {"postgres": postgres, "redis": redis, "storage": storage, "provider": _provider(state)}


async def _state_of(name: str, probe: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await probe
    except TimeoutError:
        return "no answer in time"
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisUnavailableError, LoamError) as error:
        _log.warning("a dependency is away", dependency=name, reason=str(error))
        return "unavailable"
    return "ok"


def _provider(state: State) -> str:
    # A probe of a provider would cost money, so nothing is known but what calls have met.
    return "failing" if state.provider.failing else "unknown"


def _answer(status: int, body: Mapping[str, object]) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
