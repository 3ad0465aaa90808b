"""Taking orders: what every route that costs does first."""

import hashlib

from fastapi import Request

from loam_gateway.auth import tenant_of
from loam_gateway.cache.policy import CachePolicy
from loam_gateway.directory.model import Principal
from loam_gateway.ledger.model import IdempotencyClaim
from loam_gateway.metering import traces
from loam_gateway.metering.choice import models_for
from loam_gateway.metering.order import Order
from loam_gateway.state import State
from loam_shared.errors import InvalidRequestError
from loam_shared.http import request_id_of

_LONGEST_KEY = 255


async def order_of(
    deps: State, request: Request, caller: Principal, *, model: str, capabilities: tuple[str, ...]
) -> Order:
    """The order for `model` in `request`. Raises LoamError where the caller may not have it."""
    tenant = await tenant_of(caller, deps)
    traces.caller(tenant.name, caller.key_id)
    return Order(
        caller=caller,
        tenant=tenant,
        models=await models_for(deps.directory, tenant, model, capabilities),
        request_id=request_id_of(request),
        hold_seconds=deps.settings.hold_seconds,
        slot=getattr(request.state, "slot", None) or deps.fair_queue.slot(tenant.name),
        claim=await claim_of(request),
        cache=CachePolicy.of(request.headers.get("cache-control"), deps.settings.cache_seconds),
    )


async def claim_of(request: Request) -> IdempotencyClaim | None:
    """What the Idempotency-Key header claims: the same key stands for the same route and body. Raises LoamError."""
    key = request.headers.get("idempotency-key")
    if not key:
        return None
    if len(key) > _LONGEST_KEY:
        raise InvalidRequestError(f"Idempotency-Key: at most {_LONGEST_KEY} characters")
    digest = hashlib.sha256(request.url.path.encode() + b"\n" + await request.body())
    return IdempotencyClaim(key, digest.digest())
