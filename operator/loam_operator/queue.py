"""Which objects are to be reconciled, and when: keyed, without duplicates, with back-off.

A key is never worked on twice at the same time. Adding one that waits changes nothing; adding one that is being worked
on makes it come again afterwards, so that no change is ever missed.
"""

import asyncio
import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 60.0


class WorkQueue(Generic[Key]):
    """Keys in the order in which they fell due. `now` gives seconds of a monotonic clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ready: dict[Key, None] = {}
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, int, Key]] = []
        self._count = 0
        self._changed = asyncio.Event()

    def add(self, key: Key) -> None:
        """Work on the key as soon as may be."""
        if key in self._working:
            self._again.add(key)
        else:
            self._ready[key] = None
            self._changed.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on the key in `seconds`, unless that is due sooner anyway."""
        due = self._now() + seconds
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._count += 1
            heapq.heappush(self._timers, (due, self._count, key))
            self._changed.set()

    async def get(self) -> Key:
        """The next key, once there is one; the caller says `done` or `failed` when it has worked on it."""
        while True:
            wait = self._ripen()
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
                self._working.add(key)
                return key
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: Key, after: float | None = None) -> None:
        """The key is as it should be; look again `after` seconds."""
        self._failures.pop(key, None)
        self._finish(key)
        if after is not None:
            self.add_after(key, after)

    def failed(self, key: Key) -> float:
        """Try the key again after a pause that doubles each time; returns the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause: float = min(FIRST_PAUSE * 2 ** min(failures, 20), LONGEST_PAUSE)
        self._finish(key)
        self.add_after(key, pause)
        return pause

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting to be worked on now, or being worked on."""
        return not self._ready and not self._working

    def _finish(self, key: Key) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _ripen(self) -> float | None:
        """Move what fell due to the ready ones; returns the seconds until the next one falls due."""
        while self._timers and self._timers[0][0] <= self._now():
            due, _, key = heapq.heappop(self._timers)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        return max(0.0, self._timers[0][0] - self._now()) if self._timers else None
