"""`python -m loam_bedrock_local`: serve until told to stop."""

import uvicorn

from loam_bedrock_local.answer import Answerer
from loam_bedrock_local.app import App
from loam_bedrock_local.auth import Gate
from loam_bedrock_local.billing import Meter
from loam_bedrock_local.cache import PromptCache
from loam_bedrock_local.embedder import Embedder
from loam_bedrock_local.engine import Engine
from loam_bedrock_local.faults import Scenario
from loam_bedrock_local.invoke import Invoker
from loam_bedrock_local.settings import Settings
from loam_shared import logging


def build(settings: Settings) -> App:
    """The application with everything that it needs, the embedding table in memory."""
    embedder = Embedder()
    embedder.load()
    return App(
        Gate(settings.accept_keys),
        Scenario.load(settings.scenario_file),
        Engine(Answerer(embedder), PromptCache(), obedient=settings.obedient),
        Invoker(embedder),
        Meter(),
    )


def main() -> None:
    """Serve on LOAM_HOST:LOAM_PORT."""
    settings = Settings()
    logging.configure(settings.log_level, service="bedrock-local")
    uvicorn.run(
        build(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        lifespan="off",
        server_header=False,
        # Longer than clients keep idle connections, as AWS does it: else they meet one that is just being closed.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
