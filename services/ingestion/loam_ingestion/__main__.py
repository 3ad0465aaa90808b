import asyncio
import contextlib
from collections.abc import AsyncIterator
from logging import getLogger

import aiohttp
import structlog

from loam_ingestion.adapters.gateway import Gateway
from loam_ingestion.adapters.index import open_index
from loam_ingestion.adapters.storage import open_storage
from loam_ingestion.batch import Batches
from loam_ingestion.parsing.pool import parsers
from loam_ingestion.serving import application
from loam_ingestion.settings import Settings
from loam_ingestion.worker import Worker
from loam_shared import logging
from loam_shared.index import database_uri
from loam_shared.serving import KEPT_ALIVE_SECONDS, serve


async def run(settings: Settings) -> None:
    async with _worker(settings) as worker:
        working = asyncio.create_task(worker.run())
        await serve(application(worker), settings.host, settings.port, beside=working)


@contextlib.asynccontextmanager
async def _worker(settings: Settings) -> AsyncIterator[Worker]:
    uri = database_uri(settings.storage_bucket, settings.storage_prefix)
    connector = aiohttp.TCPConnector(keepalive_timeout=KEPT_ALIVE_SECONDS)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        open_storage() as storage,
        parsers(settings.parsing, settings.documents_at_once) as pool,
    ):
        gateway = Gateway(session, settings.gateway_url, settings.gateway_key_file, settings.pipeline)
        index = await open_index(uri, settings.pipeline)
        yield Worker(settings, gateway, Batches(settings, gateway, storage, index, pool))


def main() -> None:
    settings = Settings()
    logging.configure(settings.log_level, service="ingestion")
    getLogger("botocore").setLevel("WARNING")  # it tells at every start where it found credentials
    structlog.contextvars.bind_contextvars(tenant=settings.tenant, pipeline=settings.pipeline)
    # uvloop starts processes by a plain fork, which LanceDB's threads do not survive for sure; asyncio uses vfork.
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
