"""Routes of the admin listener: the operator's token opens it."""

from loam_gateway.admin import keys, models, states, tenants
from loam_gateway.pipelines.routes_admin import router as pipelines
from loam_gateway.templates.routes_admin import router as templates

ROUTERS = (models.router, tenants.router, keys.router, pipelines, templates, states.router)
