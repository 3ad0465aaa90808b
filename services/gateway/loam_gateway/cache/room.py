"""The cache as a call uses it: take a turn, get an answer that is there, or ask the provider and keep what it says."""

import asyncio
from types import TracebackType
from typing import Any, Self

from loam_gateway.adapters.redis import Redis, RedisUnavailableError
from loam_gateway.cache.entry import Cached
from loam_gateway.cache.flights import Flights, Role
from loam_gateway.cache.policy import CachePolicy
from loam_gateway.cache.shelf import Found, Shelf
from loam_gateway.metrics import Metrics
from loam_gateway.vault import Vault

PATIENCE_SECONDS = 60.0
"""How long a call waits for another's answer before it asks for its own: a second call is better than a hung one."""
LEASE_SECONDS = 10.0
"""How long a gateway that died keeps others from asking; one that lives renews its leases."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25


class ResponseCache:
    """Answers that were given before. Without Redis only calls of the same moment, in this process, share one."""

    def __init__(self, redis: Redis, vault: Vault, metrics: Metrics, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self.shelf = Shelf(redis, vault, lease_seconds)
        # Within this gateway the lease goes with the lead; with nobody here to lead it is another gateway's turn.
        self.flights: Flights[Cached] = Flights(self.shelf.give_back)
        self.metrics = metrics
        # Looking up a label costs as much as counting, and every call counts one of these.
        self.hits, self.misses = (metrics.cache_lookups.labels(result) for result in ("hit", "miss"))
        self.renew_seconds = lease_seconds / 3

    def turn(self, key: bytes, policy: CachePolicy, *, alone: bool = False) -> "Turn":
        """One call's turn, as a context. `alone`, it neither waits for others nor lets others wait for it."""
        return Turn(self, key, policy, alone=alone)


class Turn:
    """One call between others that ask the same.

    What is kept is asked for when the context begins, so that it comes in one round trip with whatever else the call
    asks Redis for. `answer` waits for it; when there is none, it is this call's turn to ask the provider, and to `keep`
    or `let_go` what that says. A turn that ends without either, since the call failed or was given up, goes to the next
    who waits.
    """

    def __init__(self, cache: ResponseCache, key: bytes, policy: CachePolicy, *, alone: bool) -> None:
        self._cache = cache
        self._key = key
        self._policy = policy
        self._alone = alone
        self._leads = False
        self._reply: asyncio.Future[Any] | None = None
        self._renewal: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        if self._policy.read and self._alone:
            self._reply = self._cache.shelf.read(self._key)
        elif self._policy.read and self._cache.flights.lead(self._key):
            self._leads = True
            self._reply = self._cache.shelf.look(self._key)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leads:
            self._stop()
            self._cache.flights.hand_over(self._key)

    async def answer(self) -> Cached | None:
        """The answer that is there or that another brings; None when it is this call's turn to ask."""
        if not self._policy.read:
            return None
        found = await self._found()
        (self._cache.misses if found is None else self._cache.hits).inc()
        if found is not None and self._leads:
            self._leads = False
            self._cache.flights.share(self._key, found)
        return found

    def keep(self, cached: Cached, seconds: float) -> None:
        """Give the answer to all who wait, and keep it for those to come."""
        if seconds > 0:
            self._cache.shelf.keep(self._key, cached, seconds)
        if self._leads:
            self._stop()
            self._cache.flights.share(self._key, cached)

    def let_go(self) -> None:
        """The answer is good for this caller alone: all who wait ask for their own."""
        if self._leads:
            self._stop()
            self._cache.flights.let_go(self._key)
            self._cache.shelf.give_back(self._key)

    async def _found(self) -> Cached | None:
        if self._alone:
            found = await self._replied()
            return found if isinstance(found, Cached) else None
        until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        if not self._leads:
            self._cache.metrics.cache_waits.inc()
            brought = await self._cache.flights.wait(self._key, PATIENCE_SECONDS)
            if not isinstance(brought, Role):
                return brought
            if brought is Role.ALONE:
                return None
            self._leads = True
            self._reply = self._cache.shelf.look(self._key)
        return await self._looked(until)

    async def _looked(self, until: float) -> Cached | None:
        """While another gateway asks, look again at growing distances: one call does so for all who wait here."""
        loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE
        while (found := await self._replied()) is Found.ANOTHERS_LEASE and loop.time() < until:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            self._reply = self._cache.shelf.look(self._key)
        if found is Found.NOTHING:
            self._renewal = loop.call_later(self._cache.renew_seconds, self._renew)
        return found if isinstance(found, Cached) else None

    async def _replied(self) -> Cached | Found | None:
        """What Redis has; None when it is away."""
        try:
            if self._reply is not None:
                return self._cache.shelf.found(self._key, await self._reply)
        except RedisUnavailableError:
            pass
        self._cache.metrics.cache_open.inc()
        return None

    def _renew(self) -> None:
        self._cache.shelf.renew(self._key)
        self._renewal = asyncio.get_running_loop().call_later(self._cache.renew_seconds, self._renew)

    def _stop(self) -> None:
        self._leads = False
        if self._renewal is not None:
            self._renewal.cancel()
