"""What the sample becomes, whole. `LOAM_WRITE_GOLDEN=1` writes the files anew; then read the difference."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from loam_operator import rbac
from loam_operator.cluster import Manifest, Ref
from loam_operator.observe import pipeline as observe_pipeline
from loam_operator.observe import tenant as observe_tenant
from loam_operator.render import pipeline as render_pipeline
from loam_operator.render import tenant as render_tenant
from loam_operator.settings import Platform
from loam_shared.contracts.admin import StorageGrant

GOLDEN = Path(__file__).with_name("golden")
ROOT = Path(__file__).parents[3]
PIPELINE = Ref("loam.dev/v1alpha1", "RagPipeline", "handbook", "acme")
PLATFORM = Platform(storage_cidrs=("10.1.0.0/24",))


def agrees(name: str, manifests: Sequence[Manifest]) -> bool:
    path = GOLDEN / f"{name}.yaml"
    text = yaml.safe_dump_all(yaml.safe_load(yaml.safe_dump(list(manifests))), sort_keys=True)
    if os.environ.get("LOAM_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return path.read_text() == text


def seen_tenant(acme):
    owned = {"loam.dev/owner-uid": "uid-of-backend"}
    meta = {"name": "backend-key", "namespace": "acme", "annotations": owned}
    acme.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    return observe_tenant.observe(acme, "acme", PLATFORM)


def test_a_tenant_becomes_exactly_these_objects(acme) -> None:
    assert agrees("tenant", render_tenant.render(seen_tenant(acme), "Adopted", PLATFORM))


@pytest.mark.parametrize("owner", [{}, {"loam.dev/owner-uid": "uid-of-acme"}])
def test_an_api_key_that_names_somebody_elses_secret_lets_nobody_read_it(acme, owner: dict) -> None:
    key = acme.objects[Ref("loam.dev/v1alpha1", "ApiKey", "backend", "acme")]
    thief = {"name": "thief", "namespace": "acme", "uid": "uid-of-thief"}
    acme.put(key | {"metadata": thief, "spec": key["spec"] | {"secretName": "loam-storage"}})
    meta = {"name": "loam-storage", "namespace": "acme", "annotations": owner}
    acme.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    [role] = [made for made in render_tenant.render(seen_tenant(acme), "Adopted", PLATFORM) if made["kind"] == "Role"]
    assert role["rules"][0]["resourceNames"] == ["backend-key"]


def test_a_pipeline_becomes_exactly_these_objects(acme) -> None:
    seen = observe_pipeline.observe(acme, PIPELINE, PLATFORM)
    assert agrees("pipeline", render_pipeline.render(seen, "acme", PLATFORM))


def test_the_storage_secret_holds_no_key_where_pods_bring_their_own_identity(acme) -> None:
    grant = StorageGrant(bucket="loam", prefix="tenants/acme/", region="us-east-1")
    secret = render_tenant.storage(seen_tenant(acme), grant)
    assert secret["data"].keys() == {"LOAM_STORAGE_BUCKET", "LOAM_STORAGE_PREFIX", "AWS_REGION"}


def test_network_egress_opens_exactly_what_the_manifest_names(acme, put) -> None:
    network = {
        "egress": [{"cidr": "203.0.113.0/24", "ports": [443]}],
        "services": [{"host": "orders.shop.svc", "ports": [8080]}, {"host": "127.0.0.1", "ports": [9]}],
    }
    put(Ref("loam.dev/v1alpha1", "Tenant", "acme"), {"spec": {"network": network}})
    rendered = render_tenant.render(seen_tenant(acme), "Adopted", PLATFORM)
    policies = {m["metadata"]["name"]: m["spec"] for m in rendered if m["kind"] == "NetworkPolicy"}
    assert policies["loam-allow-egress"]["egress"] == [
        {"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    ]
    shop = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    assert policies["loam-allow-services"]["egress"] == [{"to": [shop], "ports": [{"port": 8080, "protocol": "TCP"}]}]
    assert policies["loam-default-deny"] == {"podSelector": {}, "policyTypes": ["Egress", "Ingress"]}


def test_the_same_in_gives_the_same_out(acme) -> None:
    seen = observe_pipeline.observe(acme, PIPELINE, PLATFORM)
    assert render_pipeline.render(seen, "acme", PLATFORM) == render_pipeline.render(seen, "acme", PLATFORM)


@pytest.mark.parametrize("changed", ["storage_secret", "key_secret", "config_maps"])
def test_a_changed_input_rolls_the_pods_that_use_it(acme, changed: str) -> None:
    seen = observe_pipeline.observe(acme, PIPELINE, PLATFORM)
    held = {"metadata": {"name": "x"}, "data": {"a": "b"}}
    other = replace(seen, **{changed: {"faq": held} if changed == "config_maps" else held})
    assert template(seen, "ingestion") != template(other, "ingestion")


def template(seen, component: str) -> dict:
    rendered = render_pipeline.render(seen, "acme", PLATFORM)
    [found] = [m for m in rendered if m["kind"] == "Deployment" and m["metadata"]["name"].endswith(component)]
    return found["spec"]["template"]


def test_every_pod_is_locked_down(acme) -> None:
    seen = observe_pipeline.observe(acme, PIPELINE, PLATFORM)
    for component in ("retrieval", "ingestion"):
        pod = template(seen, component)["spec"]
        [container] = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_rights_hold_no_wildcard_and_no_secret_of_the_whole_cluster() -> None:
    roles = {role["metadata"]["name"]: role["rules"] for role in rbac.cluster_roles()}
    for rules in roles.values():
        for rule in rules:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
    assert not [rule for rule in roles["loam-operator"] if "secrets" in rule["resources"]]
    [bind] = [rule for rule in roles["loam-operator"] if "bind" in rule["verbs"]]
    assert bind["resourceNames"] == ["loam-tenant-secrets", "loam-tenant-owner", "loam-tenant-member"]
    assert not [rule for rule in roles["loam-operator"] if {"escalate", "impersonate"} & set(rule["verbs"])]


def test_the_rights_in_the_file_are_those_of_the_table() -> None:
    assert (ROOT / "operator" / "rbac.yaml").read_text() == rbac.to_yaml()
