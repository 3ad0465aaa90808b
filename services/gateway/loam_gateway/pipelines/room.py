"""What the pipelines' routes work with, opened at start-up and closed at the end."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from joserfc.jwk import OKPKey

from loam_gateway.adapters.postgres import Pool
from loam_gateway.adapters.retrieval import Retrieval
from loam_gateway.adapters.s3 import ObjectStore
from loam_gateway.pipelines import events, housekeeping
from loam_gateway.pipelines.settings import PipelineSettings
from loam_gateway.pipelines.wakeups import Wakeups
from loam_gateway.pipelines.work import WorkQueue
from loam_gateway.places import Places
from loam_gateway.storage import Storage
from loam_gateway.vault import Vault
from loam_shared.errors import UnavailableError
from loam_shared.serving import KEPT_ALIVE_SECONDS


@dataclass(frozen=True, slots=True)
class Room:
    """Everything that pipelines need, connected."""

    pool: Pool
    storage: Storage
    objects: ObjectStore
    work: WorkQueue
    retrieval: Retrieval
    vault: Vault
    signing_key: OKPKey
    settings: PipelineSettings
    uploads: Places


@asynccontextmanager
async def opened(
    database_url: str, pool: Pool, storage: Storage, vault: Vault, signing_key: OKPKey
) -> AsyncIterator[Room]:
    """The room, with its housekeeping going on for as long as the context lasts."""
    settings, wakeups = PipelineSettings(), Wakeups(database_url)
    async with AsyncExitStack() as stack:
        if settings.source_events_queue_url:
            await stack.enter_async_context(_going_on(events.run(pool, settings.source_events_queue_url)))
        # Kept no longer than the services keep them, or now and then a question would go into one that just closed.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_ALIVE_SECONDS)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        await stack.enter_async_context(_going_on(wakeups.run()))
        await stack.enter_async_context(_going_on(housekeeping.run(pool, storage, settings)))
        yield Room(
            pool=pool,
            storage=storage,
            objects=storage.objects,
            work=WorkQueue(pool, wakeups, settings),
            retrieval=Retrieval(session),
            vault=vault,
            signing_key=signing_key,
            settings=settings,
            uploads=_uploads(settings.max_uploads),
        )


def _uploads(most: int) -> Places:
    """Each needs memory as long as it lasts, and lasts as long as the one who sends it likes."""
    return Places(
        max(1, most // 2),
        lambda: UnavailableError("too many uploads are under way; send it again in a moment", retry_after=2),
        together=most,
    )


@asynccontextmanager
async def _going_on(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
