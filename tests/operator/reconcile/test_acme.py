"""The sample tenant, from the first apply to the last delete, on a real API server with a real gateway."""

import pytest

from loam_operator.cluster import Ref

from ._kube import Kube, ours, sample, until

pytestmark = pytest.mark.kubernetes

NAMESPACE = "acme"
TENANT = ours("Tenant", "acme")
PIPELINE = ours("RagPipeline", "handbook", NAMESPACE)
KEY = ours("ApiKey", "backend", NAMESPACE)


@pytest.fixture(scope="module")
async def acme(admin: Kube, operator, samples) -> Kube:
    """The sample, applied and settled; no kubelet runs here, so the test says for it that the pods are there."""
    await admin.apply(*sample(samples / "acme"))
    await until(lambda: pods_start(admin), "both Deployments are made")
    for ref in (TENANT, PIPELINE, KEY):
        await until(lambda ref=ref: is_ready(admin, ref), f"{ref} is ready")
    return admin


async def is_ready(kube: Kube, ref: Ref) -> bool:
    return await kube.condition(ref) == ("True", "Ready")


async def pods_start(kube: Kube) -> bool:
    """Say of every pod what the kubelet would once it runs; True when there is one of each Deployment."""
    answer = await kube.api.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")
    for pod in answer["items"]:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}/status"
        running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await kube.api.request("PATCH", path, body={"status": running}, content_type="application/merge-patch+json")
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in answer["items"]} == {
        "ingestion",
        "retrieval",
    }


async def test_every_object_of_the_sample_appears(acme: Kube) -> None:
    made = {(ref.kind, ref.name) for ref in await acme.everything(NAMESPACE)}
    assert made >= {("Namespace", "acme"), ("Secret", "backend-key"), ("Secret", "loam-storage")}
    print(sorted(made))
