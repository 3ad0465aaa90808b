"""Rate limits of tenants. They fail open, saying so: money is guarded by the ledger, which does not."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from loam_gateway.adapters.redis import Redis, RedisUnavailableError
from loam_gateway.directory.model import Principal, Tenant
from loam_gateway.metering import buckets
from loam_gateway.metering.buckets import Ask
from loam_gateway.metering.charge import LONGEST_SECONDS
from loam_gateway.metrics import Metrics
from loam_shared import telemetry
from loam_shared.errors import RateLimitedError

_WORDS = {
    "requestsPerMinute": "requests per minute",
    "tokensPerMinute": "tokens per minute",
    "concurrentRequests": "requests at once",
}
# A gateway that dies gives its places back only when their leases end.
_LEASE_SECONDS = round(LONGEST_SECONDS) + 60


@dataclass(slots=True)
class Permit:
    """Room under the limits. `tokens` is what was used in the end, once that is known."""

    tokens: int


@contextlib.asynccontextmanager
async def admitted(
    redis: Redis, metrics: Metrics, tenant: Tenant, caller: Principal, *, tokens: int = 0
) -> AsyncIterator[Permit]:
    """Room for one request of about `tokens` tokens, for the time of the context.

    A request that a service makes on a caller's behalf counts tokens only: the caller's own was counted at the door.
    Raises RateLimitedError.
    """
    permit = Permit(tokens)
    ask = _ask(tenant, caller, tokens)
    with telemetry.current().child("admission"):
        taken = bool(tenant.limits) and await _admit(redis, metrics, ask)
    try:
        yield permit
    finally:
        if taken:
            buckets.finish(redis, ask, tokens=permit.tokens)


async def _admit(redis: Redis, metrics: Metrics, ask: Ask) -> bool:
    try:
        refusal = await buckets.admit(redis, ask)
    except RedisUnavailableError:
        metrics.limits_open.inc()
        return False
    if refusal is None:
        return True
    raise RateLimitedError(
        f"the tenant's limit of {_WORDS[refusal.limit]} is reached",
        retry_after=-(-refusal.retry_after_ms // 1000),
        limit=refusal.limit,
    )


def _ask(tenant: Tenant, caller: Principal, tokens: int) -> Ask:
    limits = tenant.limits
    most = limits.tokens_per_minute or 0
    return Ask(
        bucket=tenant.name,
        lease=secrets.token_hex(8),
        requests_limit=(limits.requests_per_minute or 0) if caller.at_the_door else 0,
        requests=1,
        tokens_limit=most,
        tokens=min(tokens, most),
        concurrent_limit=(limits.concurrent_requests or 0) if caller.at_the_door else 0,
        lease_seconds=_LEASE_SECONDS,
    )
