"""What users of the CRDs see: samples, kubectl's columns and explanations, status and scale."""

from pathlib import Path

import pytest
import yaml

from loam_operator.api.base import API_VERSION
from loam_operator.api.v1alpha1 import KINDS

from ...contract.crds.manifests import Manifest, accepted, merged
from .conftest import Api

pytestmark = pytest.mark.kubernetes

SAMPLES = Path(__file__).parents[3] / "samples"
GOOD = accepted()
_NOW = "2026-11-21T05:00:00Z"


def _samples(folder: str) -> list[Manifest]:
    texts = [path.read_text() for path in sorted((SAMPLES / folder).glob("*.yaml"))]
    return [manifest for text in texts for manifest in yaml.safe_load_all(text)]


@pytest.mark.parametrize("folder", ["acme", "minimal", "sources"])
async def test_the_samples_are_admitted_in_the_order_of_their_files(api: Api, folder: str) -> None:
    for manifest in _samples(folder):
        status, answer = await api.create(manifest, dry_run=manifest["kind"] != "Namespace")
        assert status == 201 or (status, answer["reason"]) == (409, "AlreadyExists"), answer.get("message")


async def test_status_is_written_by_its_own_door_only(api: Api) -> None:
    manifest = merged(GOOD["Tenant/bare"], {"metadata": {"name": "status"}})
    await api.create(manifest)
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": _NOW}
    status = {"status": {"namespace": "status", "conditions": [ready]}}
    _, answer = await api.patch(manifest, status)
    assert "status" not in answer
    code, answer = await api.patch(manifest, status | {"spec": {"displayName": "Sneaked in"}}, "/status")
    assert code == 200, answer
    assert answer["status"]["namespace"] == "status"
    assert "displayName" not in answer["spec"]
    assert KINDS["Tenant"].read(answer).status.to_manifest() == status["status"] | {
        "conditions": [ready | {"message": ""}]
    }


async def test_a_status_that_makes_no_sense_is_refused(api: Api) -> None:
    manifest = merged(GOOD["Tenant/bare"], {"metadata": {"name": "nonsense"}})
    await api.create(manifest)
    condition = {"type": "Ready", "status": "Maybe", "reason": "Ready", "lastTransitionTime": _NOW}
    code, answer = await api.patch(manifest, {"status": {"conditions": [condition]}}, "/status")
    assert code == 422
    assert 'status.conditions[0].status: Unsupported value: "Maybe"' in answer["message"]


async def test_kubectl_get_shows_what_matters(api: Api) -> None:
    manifest = merged(GOOD["Tenant/acme"], {"metadata": {"name": "columns"}})
    await api.create(manifest)
    condition = {"type": "Ready", "status": "False", "reason": "ModelMissing", "lastTransitionTime": _NOW}
    spend = {"monthUsd": "12.5", "dayUsd": "1", "asOf": _NOW}
    await api.patch(
        manifest, {"status": {"namespace": "columns", "spend": spend, "conditions": [condition]}}, "/status"
    )
    table = await api.read(
        f"/apis/{API_VERSION}/tenants/columns", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    )
    shown = {
        column["name"]: cell
        for column, cell in zip(table["columnDefinitions"], table["rows"][0]["cells"], strict=True)
        if column["priority"] == 0 and column["name"] != "Age"
    }
    assert shown == {
        "Name": "columns",
        "Namespace": "columns",
        "Spent": "12.5",
        "Budget": "500",
        "Ready": "False",
        "Reason": "ModelMissing",
    }


async def test_kubectl_get_loam_lists_every_kind(api: Api) -> None:
    resources = (await api.read(f"/apis/{API_VERSION}"))["resources"]
    listed = {resource["kind"]: resource for resource in resources if "loam" in resource.get("categories", ())}
    assert listed.keys() == KINDS.keys()
    assert {name for resource in listed.values() for name in resource["shortNames"]} == {
        "ag",
        "ak",
        "mr",
        "rag",
        "ten",
        "tool",
    }
    assert {kind for kind, resource in listed.items() if not resource["namespaced"]} == {"ModelRoute", "Tenant"}


@pytest.mark.parametrize(("kind", "field"), [("RagPipeline", "retrieval"), ("Tenant", "budget"), ("Agent", "limits")])
async def test_kubectl_explain_knows_the_fields(api: Api, kind: str, field: str) -> None:
    document = await api.read(f"/openapi/v3/apis/{API_VERSION}")
    schema = document["components"]["schemas"][f"dev.loam.v1alpha1.{kind}"]
    assert schema["description"]
    spec = schema["properties"]["spec"]
    assert spec["description"] != "What is wanted."
    assert all(child["description"] for child in spec["properties"][field]["properties"].values())


async def test_kubectl_scale_moves_the_fewest_pods_within_the_limits(api: Api) -> None:
    manifest = merged(GOOD["RagPipeline/notes"], {"metadata": {"name": "scaled"}})
    await api.create(manifest)
    await api.patch(manifest, {"status": {"replicas": 1, "selector": "app=x"}}, "/status")
    code, scale = await api.get(manifest, "/scale")
    assert (code, scale["spec"]["replicas"], scale["status"]) == (200, 1, {"replicas": 1, "selector": "app=x"})
    code, _ = await api.patch(manifest, {"spec": {"replicas": 3}}, "/scale")
    assert code == 200
    assert (await api.get(manifest))[1]["spec"]["serving"]["minReplicas"] == 3
    code, answer = await api.patch(manifest, {"spec": {"replicas": 50}}, "/scale")
    assert (code, "must be at least minReplicas" in answer["message"]) == (422, True)


async def test_two_managers_each_keep_their_own_conditions_and_credentials(api: Api) -> None:
    """Lists with a key are merged item by item under server-side apply."""
    schema = (await api.read("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tenants.loam.dev"))["spec"]
    properties = schema["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert properties["status"]["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert properties["spec"]["properties"]["providerCredentials"]["x-kubernetes-list-map-keys"] == ["provider"]
