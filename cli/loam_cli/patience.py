"""Waiting for something that moves, for as long as it does."""

import time

from loam_cli.errors import CommandError


class Patience:
    """Runs out when nothing has moved for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: object = None
        self._moved = time.monotonic()

    def look(self, at: object) -> None:
        """Take note of how it stands. Raises CommandError when it has stood so for too long."""
        now = time.monotonic()
        if at != self._seen:
            self._seen, self._moved = at, now
        elif now - self._moved > self._seconds:
            raise CommandError(f"nothing has moved for {self._seconds:g} s; see `loam doctor`")
