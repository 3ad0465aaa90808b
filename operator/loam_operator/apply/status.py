"""Status, finalizers and Events of our own objects."""

from typing import Literal

from loam_operator.api.v1alpha1 import Resource
from loam_operator.api.v1alpha1.common import Status
from loam_operator.cluster import Cluster, Ref
from loam_operator.labels import FINALIZER


def ref_of(resource: Resource) -> Ref:
    """The reference to an object of ours."""
    return Ref(resource.api_version, resource.kind, resource.metadata.name, resource.metadata.namespace)


async def write(cluster: Cluster, resource: Resource, status: Status) -> None:
    """Write the status when it says something new, with an Event when the object became ready, or stopped being so."""
    ref = ref_of(resource)
    live = cluster.get(ref)
    if live is None:
        return
    before, after = _ready((live.get("status") or {}).get("conditions", [])), _ready(status.to_manifest()["conditions"])
    await cluster.apply_status(ref, status.to_manifest())
    if before[:2] != after[:2] and after[0]:
        weight: Literal["Normal", "Warning"] = "Normal" if after[0] == "True" else "Warning"
        await cluster.record(live, weight, after[1], after[2] or f"{resource.kind} {resource.metadata.name} is ready")


async def hold(cluster: Cluster, resource: Resource) -> None:
    """Put our finalizer on, so that nothing is deleted before the operator has cleaned up after it."""
    finalizers = resource.metadata.finalizers
    if FINALIZER not in finalizers:
        await cluster.set_finalizers(ref_of(resource), [*finalizers, FINALIZER])


async def release(cluster: Cluster, resource: Resource) -> None:
    """Take our finalizer off."""
    finalizers = resource.metadata.finalizers
    if FINALIZER in finalizers:
        await cluster.set_finalizers(ref_of(resource), [name for name in finalizers if name != FINALIZER])


def _ready(conditions: list[dict[str, str]]) -> tuple[str, str, str]:
    for condition in conditions:
        if condition["type"] == "Ready":
            return condition["status"], condition["reason"], condition.get("message", "")
    return "", "", ""
