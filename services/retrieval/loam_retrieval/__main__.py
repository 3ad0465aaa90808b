import asyncio

import aiohttp
import orjson
import structlog
import uvloop

from loam_retrieval.adapters.gateway import Gateway
from loam_retrieval.app import application
from loam_retrieval.auth import Doorkeeper
from loam_retrieval.served import Pipelines
from loam_retrieval.settings import Settings
from loam_shared import logging, telemetry
from loam_shared.contracts.retrieval import Serving
from loam_shared.serving import KEPT_ALIVE_SECONDS, serve


async def run(settings: Settings) -> None:
    own = _own(settings)
    # Streams stay open as long as models talk, so the number of connections is left to the gateway's limits.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_ALIVE_SECONDS)
    async with aiohttp.ClientSession(connector=connector) as session:
        gateway = Gateway(session, settings.gateway_url, settings.answer_seconds)
        pipelines = Pipelines(settings, gateway, own)
        app = application(Doorkeeper(gateway, settings.tenant, settings.pipeline), pipelines)
        await serve(app, settings.host, settings.port, beside=asyncio.create_task(pipelines.keep_house()))


def _own(settings: Settings) -> Serving | None:
    """The pipeline that this pod is of; None in the platform's pool."""
    if settings.config_file is None:
        structlog.get_logger().info("this is the platform's pool: it serves what the gateway tells it with each call")
        return None
    # Pods are never handed on from one RagPipeline to another of its name.
    return Serving(uid="", spec=orjson.loads(settings.config_file.read_bytes()), storage=settings.storage())


def main() -> None:
    settings = Settings()
    logging.configure(settings.log_level, service="retrieval")
    telemetry.configure("retrieval")
    structlog.contextvars.bind_contextvars(tenant=settings.tenant, pipeline=settings.pipeline)
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
