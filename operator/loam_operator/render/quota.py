"""A Tenant's ResourceQuota, and the LimitRange that gives containers their share of it where they ask for nothing."""

from loam_operator.cluster import Manifest
from loam_operator.render.metadata import manifest, metadata
from loam_operator.seen import SeenTenant

# A quota on requests refuses every container that says nothing, so these are what such a one gets.
_DEFAULT_REQUESTS = {"cpu": "100m", "memory": "128Mi"}
_DEFAULT_LIMITS = {"memory": "512Mi"}


def render(seen: SeenTenant) -> list[Manifest]:
    """The quota as the manifest gives it, none when it gives none."""
    hard = seen.tenant.spec.quota
    if not hard:
        return []
    name = seen.tenant.metadata.name
    quota = metadata(seen.tenant, name, "loam-quota", namespace=seen.namespace)
    limits = metadata(seen.tenant, name, "loam-limits", namespace=seen.namespace)
    return [
        manifest("v1", "ResourceQuota", quota, spec={"hard": dict(hard)}),
        manifest("v1", "LimitRange", limits, spec={"limits": [_container(hard)]}),
    ]


def _container(hard: dict[str, str]) -> dict[str, object]:
    """Defaults of a container, and the whole quota as the most that one container may take."""
    most = {
        resource: hard[key]
        for resource in ("cpu", "memory")
        for key in (f"limits.{resource}", f"requests.{resource}", resource)
        if key in hard
    }
    container: dict[str, object] = {
        "type": "Container",
        "default": dict(_DEFAULT_LIMITS),
        "defaultRequest": dict(_DEFAULT_REQUESTS),
    }
    if "limits.cpu" in hard:
        container["default"] = {**_DEFAULT_LIMITS, "cpu": "1"}
    memory = {name: value for name, value in most.items() if name == "memory"}
    return container | {"max": memory} if memory else container
