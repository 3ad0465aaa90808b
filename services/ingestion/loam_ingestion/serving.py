"""What Kubernetes and Prometheus ask a worker."""

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from loam_ingestion.worker import Worker
from loam_shared import http


def application(worker: Worker) -> FastAPI:
    """``/healthz`` is 200 as long as the process works: what is wrong around it is no reason to restart it."""
    app = FastAPI(openapi_url=None)
    http.install(app)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok" if worker.healthy else "trying again"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
