"""Routes of the internal listener: caller tokens and pipelines' own keys open it, from within the cluster."""

from loam_gateway.internal import ai
from loam_gateway.pipelines.routes_internal import router as pipelines

ROUTERS = (ai.router, pipelines)
