"""`python -m loam_bedrock_local`: serve until told to stop."""

import uvicorn

from loam_bedrock_local.app import build
from loam_bedrock_local.auth import Gate
from loam_bedrock_local.settings import Settings
from loam_shared import logging


def main() -> None:
    """Serve on LOAM_HOST:LOAM_PORT."""
    settings = Settings()
    logging.configure(settings.log_level, service="bedrock-local")
    uvicorn.run(
        build(Gate(settings.accept_keys)),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
