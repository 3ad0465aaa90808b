"""Taking Loam's definitions out of a cluster takes nothing of the tenants' along."""

from pathlib import Path

import pytest
import yaml

from loam_operator.cluster import Ref
from loam_operator.kinds import DEFINITION
from loam_shared.errors import NotFoundError, UnavailableError

from ._kube import Kube, ours, until

pytestmark = pytest.mark.kubernetes

CRD = Ref(DEFINITION.api_version, DEFINITION.kind, "tenants.loam.dev")
FILE = Path(__file__).parents[3] / "crds" / "tenants.loam.dev.yaml"
TENANT = {
    "apiVersion": "loam.dev/v1alpha1",
    "kind": "Tenant",
    "metadata": {"name": "kept"},
    "spec": {"storage": {"deletionPolicy": "Delete"}},
}


async def test_while_a_definition_is_removed_finalizers_are_dropped_and_nothing_is_deleted(
    admin: Kube, operator
) -> None:
    await admin.apply(TENANT)

    async def is_ready() -> bool:
        return await admin.condition(ours("Tenant", "kept")) == ("True", "Ready")

    await until(is_ready, "the tenant is ready")
    before = await made(admin)
    await admin.delete(CRD)
    await until(lambda: is_gone(admin), "the definition is gone with its objects")
    assert await made(admin) == before
    await admin.apply(yaml.safe_load(FILE.read_text()))
    await until(lambda: is_served(admin), "the definition is back")
    await admin.apply(TENANT)
    await until(lambda: is_refused(admin), "a Tenant with another uid does not get the old one's data")
    await admin.edit(ours("Tenant", "kept"), {"metadata": {"annotations": {"loam.dev/adopt": "true"}}})
    await until(is_ready, "it does once it asks for it")


async def made(kube: Kube) -> set[Ref]:
    """What lives in the tenant's namespace, the namespace included."""
    everything = await kube.everything("kept", kinds=("ApiKey", "RagPipeline"))
    return {ref for ref in everything if ref.namespace == "kept" or ref.kind == "Namespace"}


async def is_gone(kube: Kube) -> bool:
    return await kube.get(CRD) is None


async def is_refused(kube: Kube) -> bool:
    return await kube.condition(ours("Tenant", "kept")) == ("False", "Conflict")


async def is_served(kube: Kube) -> bool:
    try:
        await kube.list("Tenant")
    except (NotFoundError, UnavailableError):
        return False
    return True
