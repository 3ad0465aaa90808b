"""Typed reading of the cluster's cache: our own kinds, and which tenant a namespace is of."""

from collections.abc import Iterator
from typing import TypeVar

from pydantic import ValidationError

from loam_operator.api.v1alpha1 import API_VERSION, ModelRoute, Resource, Tenant
from loam_operator.cluster import Cluster, Manifest, Ref
from loam_operator.kinds import CONFIG_MAP, NAMESPACE, SECRET
from loam_operator.labels import TENANT
from loam_operator.settings import Platform

Some = TypeVar("Some", bound=Resource)


def our_ref(kind: str, name: str, namespace: str | None = None) -> Ref:
    """A reference to an object of ours."""
    return Ref(API_VERSION, kind, name, namespace)


def read(cluster: Cluster, model: type[Some], name: str, namespace: str | None = None) -> Some | None:
    """An object of ours as last seen, or None. Raises pydantic.ValidationError when it breaks today's rules."""
    live = cluster.get(our_ref(model.definition.kind, name, namespace))
    return model.read(live) if live is not None else None


def read_all(cluster: Cluster, model: type[Some], namespace: str | None = None) -> Iterator[Some]:
    """All valid objects of a kind of ours."""
    for live in cluster.list(API_VERSION, model.definition.kind, namespace=namespace):
        try:
            yield model.read(live)
        except ValidationError:
            # Its own reconcile says what is wrong with it.
            continue


def tenant_of(cluster: Cluster, namespace: str | None, platform: Platform) -> Tenant | None:
    """The tenant that owns a namespace: its label says so, and the namespace has the name that the tenant's gives."""
    live = cluster.get(Ref(NAMESPACE.api_version, NAMESPACE.kind, namespace)) if namespace else None
    if live is None:
        return None
    name = live["metadata"].get("labels", {}).get(TENANT)
    if name is None or platform.namespace_of(name) != namespace:
        return None
    return read(cluster, Tenant, name)


def secret(cluster: Cluster, name: str, namespace: str | None) -> Manifest | None:
    """A Secret as last seen."""
    return cluster.get(Ref(SECRET.api_version, SECRET.kind, name, namespace))


def config_map(cluster: Cluster, name: str, namespace: str | None) -> Manifest | None:
    """A ConfigMap as last seen."""
    return cluster.get(Ref(CONFIG_MAP.api_version, CONFIG_MAP.kind, name, namespace))


def route(cluster: Cluster, name: str) -> ModelRoute | None:
    """A ModelRoute that is there to stay."""
    found = read(cluster, ModelRoute, name)
    return None if found is None or found.metadata.deletion_timestamp else found
