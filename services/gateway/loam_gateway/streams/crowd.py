"""How many connections each tenant keeps open here, and that all of them are to end."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

from prometheus_client import Gauge

from loam_shared.errors import RateLimitedError


class Crowd:
    """Room for `most` connections of each tenant. `draining` is set when the gateway stops."""

    def __init__(self, most: int, gauge: Gauge) -> None:
        self._most = most
        self._gauge = gauge
        self._open: Counter[str] = Counter()
        self.draining = asyncio.Event()

    @contextlib.contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """A place for the time of the context. Raises RateLimitedError when the tenant has none left."""
        if self._open[tenant] >= self._most:
            raise RateLimitedError(f"the tenant has {self._most} WebSockets open already", retry_after=1)
        self._open[tenant] += 1
        self._gauge.inc()
        try:
            yield
        finally:
            self._gauge.dec()
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]
