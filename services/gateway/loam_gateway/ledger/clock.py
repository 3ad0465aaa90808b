"""The database's clock, told from here between two looks at it, so that all gateways agree on the windows."""

import time
from datetime import UTC, datetime, timedelta


class Clock:
    """`offset` is added to the database's time; tests turn windows with it."""

    def __init__(self, offset: timedelta = timedelta()) -> None:
        self.offset = offset
        self._moment = datetime.now(UTC) + offset
        self._seen_at = time.monotonic()

    def now(self) -> datetime:
        """The database's time as of now, in UTC."""
        return self._moment + timedelta(seconds=time.monotonic() - self._seen_at)

    def set(self, moment: datetime) -> None:
        """The database just said that it is `moment` (with the offset in it)."""
        self._moment, self._seen_at = moment, time.monotonic()
