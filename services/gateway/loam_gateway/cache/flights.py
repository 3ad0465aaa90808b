"""One call for all who ask the same at the same time, within a process.

The first to ask leads; the others wait for what it brings. A leader that fails or goes away hands over to the one that
waited longest, so a failure is never shared, and nobody waits for somebody who is not there any more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Role(Enum):
    """What becomes of somebody who waited in vain."""

    LEADS = "leads"
    ALONE = "alone"


class Flights(Generic[_Value]):
    """Who waits for what. A flight is there from `lead` until its leader shares, or lets go.

    One whose leader has nobody to hand over to is over as well, and `deserted` is called with its key.
    """

    def __init__(self, deserted: Callable[[bytes], None]) -> None:
        self._deserted = deserted
        self._waiting: dict[bytes, deque[asyncio.Future[_Value | Role]]] = {}

    def lead(self, key: bytes) -> bool:
        """Become the leader, if there is none."""
        if key in self._waiting:
            return False
        self._waiting[key] = deque()
        return True

    async def wait(self, key: bytes, seconds: float) -> _Value | Role:
        """What the leader brings; LEADS once it handed over, ALONE when it has nothing for others or takes too long."""
        place: asyncio.Future[_Value | Role] = asyncio.get_running_loop().create_future()
        line = self._waiting[key]
        line.append(place)
        try:
            async with asyncio.timeout(seconds):
                return await place
        except TimeoutError:
            return self._left(line, place)
        except asyncio.CancelledError:
            if self._left(line, place) is Role.LEADS:
                self.hand_over(key)
            raise

    def share(self, key: bytes, value: _Value) -> None:
        """Give `value` to all who wait."""
        self._end(key, value)

    def let_go(self, key: bytes) -> None:
        """Let all who wait go on by themselves."""
        self._end(key, Role.ALONE)

    def hand_over(self, key: bytes) -> None:
        """Let the one that waited longest lead."""
        line = self._waiting[key]
        while line:
            place = line.popleft()
            if not place.done():
                place.set_result(Role.LEADS)
                return
        del self._waiting[key]
        self._deserted(key)

    def _end(self, key: bytes, outcome: _Value | Role) -> None:
        for place in self._waiting.pop(key):
            if not place.done():
                place.set_result(outcome)

    @staticmethod
    def _left(line: "deque[asyncio.Future[_Value | Role]]", place: "asyncio.Future[_Value | Role]") -> _Value | Role:
        """What was brought in the very moment in which its taker stopped waiting, if anything was."""
        if place.done() and not place.cancelled():
            return place.result()
        if place in line:
            line.remove(place)
        return Role.ALONE
