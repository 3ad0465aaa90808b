"""The sample tenant, from the first apply to the last delete, on a real API server with a real gateway.

The tests run in their order: each leaves the tenant as it found it, and the last one deletes it.
"""

import asyncio
import base64
import contextlib
import time

import aiobotocore.session
import pytest

from loam_operator.cluster import Ref
from loam_operator.kinds import ALL
from loam_shared.errors import ForbiddenError, NotFoundError

from ._kube import Kube, ours, sample, until

pytestmark = pytest.mark.kubernetes

NAMESPACE = "acme"
TENANT = ours("Tenant", "acme")
PIPELINE = ours("RagPipeline", "handbook", NAMESPACE)
KEY = ours("ApiKey", "backend", NAMESPACE)
MARKER = ours("Agent", "researcher", NAMESPACE)
SECRET = Ref("v1", "Secret", "backend-key", NAMESPACE)

MADE = {
    "ConfigMap": {"handbook-pipeline"},
    "Deployment": {"handbook-ingestion", "handbook-retrieval"},
    "HorizontalPodAutoscaler": {"handbook-retrieval"},
    "LimitRange": {"loam-limits"},
    "Namespace": {"acme"},
    "NetworkPolicy": {
        "handbook-retrieval",
        "loam-allow-dns",
        "loam-allow-gateway",
        "loam-allow-storage",
        "loam-default-deny",
    },
    "PodDisruptionBudget": {"handbook-retrieval"},
    "ResourceQuota": {"loam-quota"},
    "Role": {"loam-key-readers"},
    "RoleBinding": {"loam-key-readers", "loam-members", "loam-operator-secrets", "loam-owners"},
    "Secret": {"backend-key", "handbook-gateway-key", "loam-storage"},
    "Service": {"handbook-retrieval"},
    "ServiceAccount": {"handbook-ingestion", "handbook-retrieval"},
}
MINE = base64.b64encode(b"mine").decode()
# An edit of something that we set, for each kind that is made.
EDITS = {
    "ConfigMap": {"data": {"pipeline.json": "{}"}},
    "Deployment": {"spec": {"template": {"spec": {"automountServiceAccountToken": True}}}},
    "HorizontalPodAutoscaler": {"spec": {"maxReplicas": 900}},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "default": {"cpu": "7"}}]}},
    "Namespace": {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
    "NetworkPolicy": {"spec": {"podSelector": {"matchLabels": {"nobody": "at-all"}}}},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 100}},
    "ResourceQuota": {"spec": {"hard": {"requests.cpu": "4000"}}},
    "Role": {"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]},
    "RoleBinding": {"subjects": []},
    "Secret": {"data": {"key": MINE, "LOAM_STORAGE_PREFIX": MINE}},
    "Service": {"spec": {"selector": {"app.kubernetes.io/name": "another"}}},
    "ServiceAccount": {"automountServiceAccountToken": True},
}


@pytest.fixture(scope="module")
async def acme(admin: Kube, operator, samples) -> Kube:
    """The sample, applied and settled; no kubelet runs here, so the tests say for it that the pods are there."""
    await admin.apply(*sample(samples / "acme"))
    await settled(admin)
    return admin


async def settled(kube: Kube) -> None:
    """Everything is ready, and nobody writes any more."""
    for ref in (TENANT, PIPELINE, KEY):
        await until(lambda ref=ref: is_ready(kube, ref), f"{ref} is ready")
    await until(lambda: is_quiet(kube), "nothing moves any more")


async def is_ready(kube: Kube, ref: Ref) -> bool:
    if ref == PIPELINE:
        await pods_start(kube)
    return await kube.condition(ref) == ("True", "Ready")


async def is_quiet(kube: Kube) -> bool:
    before = await versions(kube)
    await asyncio.sleep(1)
    return before == await versions(kube)


async def versions(kube: Kube) -> dict[Ref, str]:
    everything = await kube.everything(NAMESPACE)
    return {ref: live["metadata"]["resourceVersion"] for ref, live in everything.items()}


async def pods_start(kube: Kube) -> None:
    """Say of every pod what the kubelet would once it runs."""
    for pod in (await kube.api.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods"))["items"]:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}/status"
        running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        with contextlib.suppress(NotFoundError):
            await kube.api.request("PATCH", path, body={"status": running}, content_type="application/merge-patch+json")


async def key_of(kube: Kube) -> str:
    secret = await kube.get(SECRET)
    return base64.b64decode(secret["data"]["key"]).decode()


async def test_every_object_of_the_sample_appears(acme: Kube) -> None:
    everything = await acme.everything(NAMESPACE)
    made: dict[str, set[str]] = {}
    for ref in everything:
        if not ref.api_version.startswith("loam.dev/"):
            made.setdefault(ref.kind, set()).add(ref.name)
    assert made == MADE


async def test_the_status_of_the_tenant_tells_where_it_is_and_what_it_spent(acme: Kube) -> None:
    status = (await acme.get(TENANT))["status"]
    assert status["namespace"] == "acme"
    assert status["endpoint"].endswith("/v1")
    assert (status["spend"]["monthUsd"], status["spend"]["dayUsd"]) == ("0", "0")
    held = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert held.items() >= {"Ready": "True", "NamespaceReady": "True", "GatewayReady": "True"}.items()
    assert held["WithinBudget"] == "True"


async def test_kinds_that_are_not_served_yet_say_so(acme: Kube) -> None:
    for ref in (ours("Agent", "researcher", NAMESPACE), ours("AgentTool", "handbook-search", NAMESPACE)):
        assert await acme.condition(ref) == ("False", "NotServed")


async def test_the_key_in_the_secret_opens_the_gateway(acme: Kube, gateway) -> None:
    assert gateway.answer(await key_of(acme)) == 200


async def test_a_second_reconcile_of_everything_writes_nothing(acme: Kube, operator) -> None:
    before = await acme.everything(NAMESPACE)
    assert operator.stop() == 0
    operator.start()
    await until(lambda: has_looked_around(acme), "the new operator works")
    after = await acme.everything(NAMESPACE)
    assert after.keys() == before.keys()
    written = {str(ref): changes(before[ref], after[ref]) for ref in after if ref != MARKER}
    assert not {ref: found for ref, found in written.items() if found}


def changes(before: object, after: object, path: str = "") -> list[str]:
    """Where two objects differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted(before.keys() | after.keys())
        return [found for name in names for found in changes(before.get(name), after.get(name), f"{path}.{name}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            found for i, pair in enumerate(zip(before, after, strict=True)) for found in changes(*pair, f"{path}.{i}")
        ]
    return [] if before == after else [f"{path}: {before} -> {after}"]


async def has_looked_around(kube: Kube) -> bool:
    """Whether a new operator has put back what is put back, and had time for all the rest, states included."""
    await kube.edit(MARKER, {"status": {"conditions": []}}, "/status")

    async def put_back() -> bool:
        return await kube.condition(MARKER) == ("False", "NotServed")

    await until(put_back, "the status is put back")
    return await is_quiet(kube)


async def test_an_edit_of_any_owned_object_is_put_back_within_5_seconds(acme: Kube) -> None:
    for ref, before in await owned(acme):
        await acme.edit(ref, EDITS[ref.kind])
        start = time.monotonic()
        await until(lambda ref=ref, before=before: looks_like(acme, ref, before), f"{ref} is put back", 5)
        assert time.monotonic() - start < 5
    await settled(acme)


async def test_a_deleted_owned_object_is_made_again_within_5_seconds(acme: Kube) -> None:
    for ref, before in await owned(acme):
        if ref.kind == "Namespace":
            continue
        await acme.delete(ref)
        await until(lambda ref=ref, before=before: is_new(acme, ref, before), f"{ref} is made again", 5)
    await settled(acme)


async def test_labels_that_are_taken_off_are_put_back(acme: Kube) -> None:
    ref = Ref("v1", "Service", "handbook-retrieval", NAMESPACE)
    before = await acme.get(ref)
    await acme.edit(ref, {"metadata": {"labels": None}})
    await until(lambda: looks_like(acme, ref, before), "the labels are put back", 5)


async def owned(kube: Kube) -> list[tuple[Ref, dict]]:
    everything = await kube.everything(NAMESPACE)
    return [(ref, live) for ref, live in everything.items() if not ref.api_version.startswith("loam.dev/")]


async def looks_like(kube: Kube, ref: Ref, before: dict) -> bool:
    live = await kube.get(ref)
    if live is not None and ref.kind == "Secret":
        # An edited key is lost to us, so another one that works takes its place.
        return all(live["data"][name] != MINE for name in before["data"])
    return live is not None and substance(live) == substance(before)


async def is_new(kube: Kube, ref: Ref, before: dict) -> bool:
    live = await kube.get(ref)
    if live is None or live["metadata"]["uid"] == before["metadata"]["uid"]:
        return False
    return ref.kind in {"Secret", "Deployment", "Service"} or substance(live) == substance(before)


def substance(live: dict) -> dict:
    """An object without what the API server and controllers keep in it."""
    metadata = {name: live["metadata"].get(name) for name in ("labels", "annotations")}
    metadata["annotations"] = {k: v for k, v in (metadata["annotations"] or {}).items() if k.startswith("loam.dev/")}
    return {name: part for name, part in live.items() if name not in {"status", "metadata", "secrets"}} | metadata


async def test_a_changed_secret_rolls_the_pods_that_use_it(acme: Kube) -> None:
    ref = Ref("apps/v1", "Deployment", "handbook-ingestion", NAMESPACE)
    before = (await acme.get(ref))["spec"]["template"]["metadata"]["annotations"]
    await acme.delete(Ref("v1", "Secret", "handbook-gateway-key", NAMESPACE))

    async def rolled() -> bool:
        return (await acme.get(ref))["spec"]["template"]["metadata"]["annotations"] != before

    await until(rolled, "the pods roll")
    await settled(acme)


async def test_owners_manage_their_own_objects_and_nothing_of_another_tenant(acme: Kube, as_user, document) -> None:
    other = document("{apiVersion: loam.dev/v1alpha1, kind: Tenant, metadata: {name: other}, spec: {}}")
    await acme.apply(other)
    await until(lambda: is_ready(acme, ours("Tenant", "other")), "the other tenant is ready")
    ann = await as_user("ann", "acme-admins")
    key = {
        "apiVersion": "loam.dev/v1alpha1",
        "kind": "ApiKey",
        "metadata": {"name": "mine", "namespace": NAMESPACE},
        "spec": {"scopes": ["ai:embed"], "secretName": "mine-key"},
    }
    await ann.apply(key)
    await until(lambda: is_ready(acme, ours("ApiKey", "mine", NAMESPACE)), "her key is ready")
    await until(lambda: may_read(ann, Ref("v1", "Secret", "mine-key", NAMESPACE)), "she may read her key")
    assert not await may_read(ann, Ref("v1", "Secret", "loam-storage", NAMESPACE))
    await ann.delete(ours("ApiKey", "mine", NAMESPACE))
    await until(lambda: is_gone(acme, Ref("v1", "Secret", "mine-key", NAMESPACE)), "its Secret is gone")
    for kind in ("ApiKey", "RagPipeline", "Agent", "AgentTool", "Secret", "ConfigMap", "Deployment"):
        with pytest.raises(ForbiddenError):
            await ann.list(kind, "other")
    with pytest.raises(ForbiddenError):
        await ann.apply(key | {"metadata": {"name": "theirs", "namespace": "other"}})
    with pytest.raises(ForbiddenError):
        await ann.edit(TENANT, {"spec": {"budget": {"monthlyUsd": "100000"}}})
    with pytest.raises(ForbiddenError):
        await ann.edit(Ref("networking.k8s.io/v1", "NetworkPolicy", "loam-default-deny", NAMESPACE), {"spec": None})
    await acme.delete(ours("Tenant", "other"))
    await until(lambda: is_gone(acme, ours("Tenant", "other")), "the other tenant is gone")
    await until(lambda: is_gone(acme, Ref("v1", "Namespace", "other")), "the namespace that Loam made is gone")


async def test_members_look_and_change_nothing(acme: Kube, as_user) -> None:
    dev = await as_user("dev", "acme-devs")
    assert len(await dev.list("ApiKey", NAMESPACE)) == 1
    with pytest.raises(ForbiddenError):
        await dev.delete(KEY)
    assert not await may_read(dev, SECRET)


async def may_read(kube: Kube, ref: Ref) -> bool:
    try:
        return await kube.get(ref) is not None
    except ForbiddenError:
        return False


async def is_gone(kube: Kube, ref: Ref) -> bool:
    return await kube.get(ref) is None


async def test_a_shared_pipeline_keeps_no_pods_that_answer_and_is_answered_until_it_has_them_again(acme: Kube) -> None:
    answering = {ref for ref, _ in await owned(acme) if ref.name == "handbook-retrieval"}
    await acme.edit(PIPELINE, {"spec": {"serving": {"mode": "Shared"}}})
    await until(lambda: says_serving(acme, "PoolServes"), "the pool serves")
    for ref in answering:
        await until(lambda ref=ref: is_gone(acme, ref), f"{ref} is gone")
    await until(lambda: is_quiet(acme), "nothing moves any more")
    await acme.edit(PIPELINE, {"spec": {"serving": {"mode": "Dedicated"}}})
    await until(lambda: exist(acme, answering), "all of it is there again")
    assert await acme.condition(PIPELINE, "Serving") == ("True", "PoolServes")
    await settled(acme)
    assert await says_serving(acme, "PodsReady")


async def says_serving(kube: Kube, reason: str) -> bool:
    return await kube.condition(PIPELINE, "Serving") == ("True", reason)


async def exist(kube: Kube, refs: set[Ref]) -> bool:
    return refs <= {ref for ref, _ in await owned(kube)}


async def test_a_suspended_tenant_runs_nothing_and_keeps_everything(acme: Kube, gateway) -> None:
    await acme.edit(TENANT, {"spec": {"suspended": True}})
    await until(lambda: replicas_are(acme, {0}), "all Deployments are scaled to zero")
    await until(lambda: is_suspended(acme), "the status says so")
    assert gateway.answer(await key_of(acme)) == 403
    await acme.edit(TENANT, {"spec": {"suspended": False}})
    await until(lambda: replicas_are(acme, {1}), "all Deployments are back")
    await settled(acme)


async def is_suspended(kube: Kube) -> bool:
    return await kube.condition(TENANT) == ("False", "Suspended")


async def replicas_are(kube: Kube, wanted: set[int]) -> bool:
    return {live["spec"]["replicas"] for live in await kube.list("Deployment", NAMESPACE)} == wanted


async def test_a_deleted_tenant_takes_everything_of_its_own_and_its_data_along(acme: Kube, gateway) -> None:
    key = await key_of(acme)
    prefix = "tenants/acme/"
    async with s3_client(gateway) as s3:
        await s3.put_object(Bucket=gateway.bucket, Key=f"{prefix}raw/handbook/a", Body=b"text")
        await acme.edit(TENANT, {"spec": {"storage": {"deletionPolicy": "Delete"}}})
        await acme.delete(TENANT)
        await until(lambda: is_gone(acme, TENANT), "the Tenant is gone")
        assert "Contents" not in await s3.list_objects_v2(Bucket=gateway.bucket, Prefix=prefix)
    left = {ref for ref in await acme.everything(NAMESPACE) if ref.kind != "ModelRoute"}
    assert left == {Ref("v1", "Namespace", "acme")}, "the namespace was ours to adopt, not to delete"
    assert gateway.answer(key) == 401
    assert not await acme.list("Deployment", NAMESPACE)


def s3_client(gateway):
    return aiobotocore.session.get_session().create_client(
        "s3",
        endpoint_url=gateway.s3,
        region_name="us-east-1",
        aws_access_key_id="admin",
        aws_secret_access_key="adminsecret",
    )


def test_no_kind_is_made_that_no_edit_is_tried_on() -> None:
    assert MADE.keys() == EDITS.keys() <= {kind for _, kind in ALL}
