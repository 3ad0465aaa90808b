"""Turns at the gateway's own work, shared fairly among tenants.

One process does all work of its requests on one core. When a tenant sends a thousand at once, they wait here instead
of in the event loop's queue, where everybody else's would stand behind them. A free turn goes to the tenants in
rotation (round-robin fair queueing, Nagle, RFC 970), within a tenant in the order of arrival.
"""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self


class FairQueue:
    """At most `width` turns at once. What waits for a provider needs none: a turn is for work, not for waiting."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def slot(self, tenant: str) -> "Slot":
        """What one request of `tenant` takes its turns with."""
        return Slot(self, tenant)

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return sum(len(line) for line in self._waiting.values())

    async def enter(self, tenant: str) -> None:
        """Wait for a turn. Every one that was entered has to be left."""
        if self._free:
            self._free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            self._give_up(tenant, place)
            raise

    def leave(self) -> None:
        """Give the turn to the tenant whose line has waited longest since its last."""
        while self._waiting:
            tenant = next(iter(self._waiting))
            line = self._waiting.pop(tenant)
            place = line.popleft()
            if line:
                self._waiting[tenant] = line
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def _give_up(self, tenant: str, place: asyncio.Future[None]) -> None:
        # The turn may have been given in the very moment in which its taker went away.
        if place.done() and not place.cancelled():
            self.leave()
        elif place in (line := self._waiting.get(tenant, deque())):
            line.remove(place)
            if not line:
                del self._waiting[tenant]


class Slot:
    """One request's turns: ``async with`` waits for one, which is over with the block or once it is given back.

    Who waits for something that another request may have to do first, or for a provider, must not keep a turn
    meanwhile.
    """

    __slots__ = ("_queue", "_taken", "_tenant")

    def __init__(self, queue: FairQueue, tenant: str) -> None:
        self._queue = queue
        self._tenant = tenant
        self._taken = False

    async def __aenter__(self) -> Self:
        if not self._taken:
            await self._queue.enter(self._tenant)
            if self._taken:  # Two branches of the request, a call and its hedge, waited at the same time.
                self._queue.leave()
            self._taken = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Let another go on, unless that was done already."""
        if self._taken:
            self._taken = False
            self._queue.leave()
