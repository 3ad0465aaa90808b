"""Routes of the public listener: callers' API keys open it, and the tenant comes from the key alone."""

from loam_gateway.pipelines.routes_overview import router as overview
from loam_gateway.pipelines.routes_public import router as pipelines
from loam_gateway.public import ai, health, keys, schema, simple, streams, usage, ws
from loam_gateway.templates.routes_public import router as templates

ROUTERS = (
    ai.router,
    simple.router,
    templates,
    overview,
    pipelines,
    keys.router,
    streams.router,
    ws.router,
    usage.router,
    health.router,
    schema.router,
)
