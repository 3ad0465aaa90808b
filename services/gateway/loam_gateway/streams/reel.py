"""A stream's events with their numbers, from 1, of which the latest are kept."""

from collections import deque

from loam_shared.errors import NotFoundError

Numbered = tuple[int, bytes]
"""A number and the event's frame."""


class Reel:
    """The latest events of a stream that together have at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self.last = 0

    @property
    def first(self) -> int:
        """The number of the oldest that is kept."""
        return self.last - len(self._events) + 1

    def add(self, event: bytes) -> None:
        """Append an event; the oldest make room."""
        self._events.append(event)
        self._bytes += len(event)
        self.last += 1
        while self._bytes > self._max_bytes and len(self._events) > 1:
            self._bytes -= len(self._events.popleft())

    def after(self, number: int) -> list[Numbered]:
        """What came after the event `number`. Raises NotFoundError when it is not all there any more."""
        if number < self.first - 1:
            raise gap(number)
        start = number - self.first + 1
        return [(self.first + at, self._events[at]) for at in range(start, len(self._events))]


def gap(number: int) -> NotFoundError:
    """Why a stream cannot go on after the event `number`."""
    return NotFoundError(f"the events after {number} are no longer kept; ask again from the beginning")
