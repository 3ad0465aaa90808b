import aiohttp
import structlog
import uvloop

from loam_retrieval.adapters.gateway import Gateway
from loam_retrieval.adapters.index import open_index
from loam_retrieval.app import application
from loam_retrieval.auth import Doorkeeper
from loam_retrieval.chat import Answers
from loam_retrieval.pipeline import Pipeline
from loam_retrieval.search import Search
from loam_retrieval.settings import Settings
from loam_shared import logging, telemetry
from loam_shared.index import database_uri
from loam_shared.serving import KEPT_ALIVE_SECONDS, serve


async def run(settings: Settings) -> None:
    pipeline = Pipeline.read(settings.config_file)
    for name in pipeline.retrieval.not_served:
        structlog.get_logger().warning("not served yet, searches go without it", setting=f"retrieval.{name}")
    index = await open_index(database_uri(settings.storage_bucket, settings.storage_prefix))
    # Streams stay open as long as models talk, so the number of connections is left to the gateway's limits.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_ALIVE_SECONDS)
    async with aiohttp.ClientSession(connector=connector) as session:
        gateway = Gateway(session, settings.gateway_url, settings.answer_seconds)
        search = Search(pipeline, gateway, index)
        doorkeeper = Doorkeeper(gateway, settings.tenant, settings.pipeline)
        app = application(doorkeeper, search, Answers(settings, pipeline, gateway, search))
        await serve(app, settings.host, settings.port)


def main() -> None:
    settings = Settings()
    logging.configure(settings.log_level, service="retrieval")
    telemetry.configure("retrieval")
    structlog.contextvars.bind_contextvars(tenant=settings.tenant, pipeline=settings.pipeline)
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
