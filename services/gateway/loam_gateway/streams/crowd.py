"""How many connections each tenant keeps open here, and that all of them are to end."""

import asyncio
import contextlib
from collections.abc import Iterator

from prometheus_client import Gauge

from loam_gateway.places import Places
from loam_shared.errors import RateLimitedError


class Crowd:
    """Room for `most` connections of each tenant. `draining` is set when the gateway stops."""

    def __init__(self, most: int, gauge: Gauge) -> None:
        refusal = f"the tenant has {most} WebSockets open already"
        self._places = Places(most, lambda: RateLimitedError(refusal, retry_after=1))
        self._gauge = gauge
        self.draining = asyncio.Event()

    @contextlib.contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """A place for the time of the context. Raises RateLimitedError when the tenant has none left."""
        with self._places.place(tenant), self._gauge.track_inprogress():
            yield
