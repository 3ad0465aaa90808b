"""Which of our objects a change may concern. Too many costs a look at memory; too few would be a stale object."""

from collections.abc import Iterator

from loam_operator.api.v1alpha1 import API_VERSION, KINDS
from loam_operator.cluster import Cluster, Manifest, Ref
from loam_operator.labels import OWNER_KIND, OWNER_NAME, TENANT
from loam_operator.observe.world import our_ref
from loam_operator.settings import Platform

_LIVING_IN = ("ApiKey", "RagPipeline")


def is_ours(manifest: Manifest) -> bool:
    """Whether it is of a kind of ours."""
    return manifest["apiVersion"] == API_VERSION and manifest["kind"] in KINDS


def concerned(cluster: Cluster, manifest: Manifest, platform: Platform) -> Iterator[Ref]:
    """The objects of ours to look at when this one was added, changed or deleted; some may not exist."""
    metadata = manifest["metadata"]
    if is_ours(manifest):
        yield Ref.of(manifest)
        yield from _dependants(cluster, manifest, platform)
        return
    labels = metadata.get("labels") or {}
    if OWNER_KIND in labels and OWNER_NAME in labels:
        namespace = None if labels[OWNER_KIND] == "Tenant" else metadata.get("namespace")
        yield our_ref(labels[OWNER_KIND], labels[OWNER_NAME], namespace)
    if manifest["kind"] == "Namespace":
        yield from _of_namespace(cluster, metadata["name"], labels.get(TENANT), platform)
    elif manifest["kind"] in {"Secret", "ConfigMap"}:
        yield from _of_namespace(cluster, metadata["namespace"], None, platform)
        if metadata["namespace"] == platform.namespace:
            yield from _all(cluster, "ModelRoute")


def fingerprint(manifest: Manifest) -> tuple[object, ...]:
    """What others may depend on in an object of ours; a status that only counts spend is not among it."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    conditions = tuple((held["type"], held["status"]) for held in status.get("conditions", ()))
    return metadata.get("uid"), metadata.get("generation"), metadata.get("deletionTimestamp"), conditions


def _dependants(cluster: Cluster, manifest: Manifest, platform: Platform) -> Iterator[Ref]:
    metadata, kind = manifest["metadata"], manifest["kind"]
    if kind == "Tenant":
        yield from _of_namespace(cluster, platform.namespace_of(metadata["name"]), None, platform)
    elif kind == "ModelRoute":
        for dependant in ("ModelRoute", "Tenant", "RagPipeline"):
            yield from _all(cluster, dependant)
    elif kind in KINDS:
        yield from _tenant_of(metadata["namespace"], platform)


def _of_namespace(cluster: Cluster, namespace: str, label: str | None, platform: Platform) -> Iterator[Ref]:
    yield from _tenant_of(namespace, platform)
    if label:
        yield our_ref("Tenant", label)
    for kind in _LIVING_IN:
        yield from _all(cluster, kind, namespace)


def _tenant_of(namespace: str, platform: Platform) -> Iterator[Ref]:
    if namespace.startswith(platform.tenant_namespace_prefix):
        yield our_ref("Tenant", namespace.removeprefix(platform.tenant_namespace_prefix))


def _all(cluster: Cluster, kind: str, namespace: str | None = None) -> Iterator[Ref]:
    for manifest in cluster.list(API_VERSION, kind, namespace=namespace):
        yield Ref.of(manifest)
