"""Waking those who wait for work, across all gateways, by PostgreSQL's LISTEN and NOTIFY.

A notification that is lost only delays: whoever waits looks again by itself every few seconds.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterator

import asyncpg
import structlog

from loam_gateway.pipelines.model import PipelineId

CHANNEL = "loam_work"
_RECONNECT_SECONDS = 1.0
_log = structlog.get_logger()


class Wakeups:
    """One listening connection for the process; `run` keeps it."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    @contextlib.contextmanager
    def waiting(self, pipeline: PipelineId) -> Iterator[asyncio.Event]:
        """An event that is set when there may be work for `pipeline`; whoever waits clears it before looking."""
        event, name = asyncio.Event(), str(pipeline)
        self._waiting[name].add(event)
        try:
            yield event
        finally:
            self._waiting[name].discard(event)
            if not self._waiting[name]:
                del self._waiting[name]

    async def run(self) -> None:
        """Listen until cancelled; a lost connection is opened again."""
        while True:
            try:
                await self._listen()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("cannot listen for work; looking every few seconds instead", reason=str(error))
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._database_url, timeout=5)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(CHANNEL, lambda *notice: self._wake(str(notice[-1])))
            # Whatever was announced while nobody listened is found by looking.
            for name in tuple(self._waiting):
                self._wake(name)
            await lost.wait()
        finally:
            await connection.close(timeout=1)

    def _wake(self, name: str) -> None:
        for event in self._waiting.get(name, ()):
            event.set()
