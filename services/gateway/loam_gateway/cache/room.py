"""The cache as a call uses it: take a turn, get an answer that is there, or ask the provider and keep what it says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

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
        self._shelf = Shelf(redis, vault, lease_seconds)
        self._renew_seconds = lease_seconds / 3
        self._flights: Flights[Cached] = Flights()
        self._metrics = metrics

    @contextlib.asynccontextmanager
    async def turn(self, key: bytes, policy: CachePolicy) -> AsyncIterator["Turn"]:
        """One call's turn: with an answer in it, or with the duty to `keep` or `let_go` what the provider says.

        A turn that ends without either, since the call failed or was given up, goes to the next who waits.
        """
        turn = Turn(key, self._shelf, self._flights, self._metrics, self._renew_seconds)
        try:
            if policy.read:
                turn.cached = await turn.find()
                self._count(turn.cached)
            yield turn
        finally:
            turn.end()

    async def read(self, key: bytes, policy: CachePolicy) -> Cached | None:
        """What is kept, without waiting for anybody: a stream's caller wants the first word soon."""
        if not policy.read:
            return None
        try:
            cached = await self._shelf.read(key)
        except RedisUnavailableError:
            self._metrics.cache_open.inc()
            return None
        self._count(cached)
        return cached

    def keep(self, key: bytes, cached: Cached, seconds: float) -> None:
        """Keep an answer for others to come. Nothing waits for that."""
        if seconds > 0:
            self._shelf.keep(key, cached, seconds)

    def _count(self, cached: Cached | None) -> None:
        self._metrics.cache_lookups.labels("miss" if cached is None else "hit").inc()


class Turn:
    """One call between others that ask the same. `cached` is the answer, where there is one."""

    def __init__(
        self, key: bytes, shelf: Shelf, flights: Flights[Cached], metrics: Metrics, renew_seconds: float
    ) -> None:
        self.cached: Cached | None = None
        self._key = key
        self._shelf = shelf
        self._flights = flights
        self._metrics = metrics
        self._renew_seconds = renew_seconds
        self._leads = False
        self._renewal: asyncio.TimerHandle | None = None

    async def find(self) -> Cached | None:
        """The answer that is there or that another brings; None when it is this call's turn to ask."""
        until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        self._leads = self._flights.lead(self._key)
        if not self._leads:
            self._metrics.cache_waits.inc()
            brought = await self._flights.wait(self._key, PATIENCE_SECONDS)
            if brought is Role.ALONE:
                return None
            if isinstance(brought, Cached):
                return brought
            self._leads = True
        found = await self._look(until)
        if found is not None:
            self._leads = False
            self._flights.share(self._key, found)
        return found

    def keep(self, cached: Cached, seconds: float) -> None:
        """Give the answer to all who wait, and keep it for those to come."""
        if seconds > 0:
            self._shelf.keep(self._key, cached, seconds)
        if self._leads:
            self._stop()
            self._flights.share(self._key, cached)

    def let_go(self) -> None:
        """The answer is good for this caller alone: all who wait ask for their own."""
        if self._leads:
            self._stop()
            self._flights.let_go(self._key)
            self._shelf.give_back(self._key)

    def end(self) -> None:
        """Hand over to the next who waits, if there was no answer."""
        if self._leads:
            self._stop()
            # Within this gateway the lease goes with the lead.
            if not self._flights.hand_over(self._key):
                self._shelf.give_back(self._key)

    async def _look(self, until: float) -> Cached | None:
        """Look in Redis. While another gateway asks, look again at growing distances: one call does so for all here."""
        loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE
        while True:
            try:
                found = await self._shelf.look(self._key)
            except RedisUnavailableError:
                self._metrics.cache_open.inc()
                return None
            if isinstance(found, Cached):
                return found
            if found is Found.NOTHING:
                self._renewal = loop.call_later(self._renew_seconds, self._renew)
                return None
            if loop.time() >= until:
                return None
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _renew(self) -> None:
        self._shelf.renew(self._key)
        self._renewal = asyncio.get_running_loop().call_later(self._renew_seconds, self._renew)

    def _stop(self) -> None:
        self._leads = False
        if self._renewal is not None:
            self._renewal.cancel()
