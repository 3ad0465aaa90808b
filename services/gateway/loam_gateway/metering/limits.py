"""Rate limits of tenants. They fail open, saying so: money is guarded by the ledger, which does not."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from loam_gateway.adapters.redis import Redis, RedisUnavailableError
from loam_gateway.directory.model import Principal, Tenant
from loam_gateway.metering import buckets
from loam_gateway.metering.buckets import Ask
from loam_gateway.metrics import Metrics
from loam_shared import telemetry
from loam_shared.errors import RateLimitedError

_WORDS = {
    "requestsPerMinute": "requests per minute",
    "tokensPerMinute": "tokens per minute",
    "concurrentRequests": "requests at once",
}
# A gateway that dies gives its places back when their leases end; one that lives renews them.
_LEASE_SECONDS = 10
_RENEW_SECONDS = _LEASE_SECONDS / 3


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
    if not taken:
        yield permit
        return
    try:
        with _leased(redis, ask):
            yield permit
    finally:
        buckets.finish(redis, ask, tokens=permit.tokens)


@contextlib.contextmanager
def _leased(redis: Redis, ask: Ask) -> Iterator[None]:
    """Keep the place among the requests at once, also through a Redis that was restarted empty meanwhile."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def renew_later() -> None:
        nonlocal timer
        timer = loop.call_later(_RENEW_SECONDS, renew)

    def renew() -> None:
        buckets.renew(redis, ask)
        renew_later()

    renew_later()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


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
