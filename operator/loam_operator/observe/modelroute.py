"""Reads what a ModelRoute depends on."""

from loam_operator.api.v1alpha1 import ModelRoute
from loam_operator.cluster import Cluster
from loam_operator.observe.secrets import referred
from loam_operator.observe.world import read, read_all
from loam_operator.seen import SeenModelRoute


def observe(cluster: Cluster, name: str, platform_namespace: str) -> SeenModelRoute | None:
    """Everything about one ModelRoute; None when it is gone."""
    route = read(cluster, ModelRoute, name)
    if route is None:
        return None
    ref = route.spec.credentials_secret_ref
    routes = {other.metadata.name: other for other in read_all(cluster, ModelRoute)}
    there = {name: other for name, other in routes.items() if not other.metadata.deletion_timestamp}
    return SeenModelRoute(route, there, referred(cluster, ref, platform_namespace) if ref else None)
