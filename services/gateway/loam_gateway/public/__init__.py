"""Routes of the public listener: callers' API keys open it, and the tenant comes from the key alone."""

from loam_gateway.public import health

ROUTERS = (health.router,)
