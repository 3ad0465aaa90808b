"""The local cluster keeps the semantics of an API server that the operator relies on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loam_cli.local.cluster import USER, LocalCluster
from loam_cli.local.store import Store
from loam_operator.cluster import Manifest, Ref
from loam_shared.errors import ConflictError, InvalidRequestError

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acme"}}


def config_map(name: str = "settings", **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "acme"}, "data": data}


def ref(manifest: Manifest) -> Ref:
    return Ref.of(manifest)


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[[], LocalCluster]]:
    """Opens the cluster on the same file again, as the next `loam up` does."""
    opened: list[Store] = []

    def open_() -> LocalCluster:
        opened.append(Store(tmp_path / "objects.sqlite"))
        return LocalCluster(opened[-1], lambda service, port: f"http://{service.name}:{port}")

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
async def cluster(reopen: Callable[[], LocalCluster]) -> LocalCluster:
    cluster = reopen()
    await cluster.apply(NAMESPACE, USER)
    return cluster


async def test_applying_the_same_again_writes_nothing(cluster: LocalCluster) -> None:
    first = await cluster.apply(config_map(a="1"))
    seen: list[Manifest] = []
    cluster.subscribe(seen.append)
    before = len(seen)
    assert await cluster.apply(config_map(a="1")) is first
    assert len(seen) == before


async def test_what_is_no_longer_applied_is_removed(cluster: LocalCluster) -> None:
    await cluster.apply(config_map(a="1", b="2"))
    live = await cluster.apply(config_map(b="2"))
    assert live["data"] == {"b": "2"}


async def test_what_another_manager_applied_stays(cluster: LocalCluster) -> None:
    labelled = NAMESPACE | {"metadata": {"name": "acme", "labels": {"team": "a", "loam.dev/tenant": "acme"}}}
    await cluster.apply(labelled, USER)
    owned = NAMESPACE | {"metadata": {"name": "acme", "labels": {"loam.dev/tenant": "acme", "managed": "loam"}}}
    await cluster.apply(owned)
    live = await cluster.apply(NAMESPACE)
    assert live["metadata"]["labels"] == {"team": "a", "loam.dev/tenant": "acme"}


async def test_a_spec_counts_generations_and_a_status_or_label_does_not(cluster: LocalCluster) -> None:
    live = await cluster.apply(config_map(a="1"))
    assert live["metadata"]["generation"] == 1
    await cluster.apply_status(ref(live), {"seen": True})
    labelled = config_map(a="1")
    labelled["metadata"]["labels"] = {"x": "y"}
    assert (await cluster.apply(labelled))["metadata"]["generation"] == 1
    changed = await cluster.apply(config_map(a="2"))
    assert changed["metadata"]["generation"] == 2
    assert changed["status"] == {"seen": True}


async def test_an_object_in_a_namespace_that_is_not_there_is_refused(cluster: LocalCluster) -> None:
    stray = config_map()
    stray["metadata"]["namespace"] = "nowhere"
    with pytest.raises(InvalidRequestError, match='namespaces "nowhere" not found'):
        await cluster.apply(stray)


async def test_creating_what_exists_and_writing_over_what_moved_on_are_conflicts(cluster: LocalCluster) -> None:
    live = await cluster.create(config_map(a="1"))
    with pytest.raises(ConflictError):
        await cluster.create(config_map(a="1"))
    await cluster.apply(config_map(a="2"))
    stale = config_map(a="3")
    stale["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    with pytest.raises(ConflictError):
        await cluster.apply(stale)


async def test_a_finalizer_holds_a_deletion_up_until_it_is_taken_away(cluster: LocalCluster) -> None:
    live = await cluster.apply(config_map())
    await cluster.set_finalizers(ref(live), ["loam.dev/finalizer"])
    await cluster.delete(ref(live), live["metadata"]["uid"])
    going = cluster.get(ref(live))
    assert going is not None
    assert going["metadata"]["deletionTimestamp"]
    await cluster.set_finalizers(ref(live), [])
    assert cluster.get(ref(live)) is None


async def test_a_deletion_that_means_an_earlier_object_does_nothing(cluster: LocalCluster) -> None:
    live = await cluster.apply(config_map())
    await cluster.delete(ref(live), "another-uid")
    assert cluster.get(ref(live)) is not None


async def test_what_is_owned_goes_with_its_owner(cluster: LocalCluster) -> None:
    owner = await cluster.apply(config_map("owner"))
    owned = config_map("owned")
    owned["metadata"]["ownerReferences"] = [{"uid": owner["metadata"]["uid"]}]
    await cluster.apply(owned)
    await cluster.delete(ref(owner), owner["metadata"]["uid"])
    assert cluster.list("v1", "ConfigMap") == []


async def test_a_namespace_takes_its_contents_and_waits_for_their_finalizers(cluster: LocalCluster) -> None:
    held = await cluster.apply(config_map("held"))
    await cluster.apply(config_map("free"))
    await cluster.set_finalizers(ref(held), ["wait"])
    namespace = cluster.get(ref(NAMESPACE))
    assert namespace is not None
    await cluster.delete(ref(NAMESPACE), namespace["metadata"]["uid"])
    assert [left["metadata"]["name"] for left in cluster.list("v1", "ConfigMap")] == ["held"]
    assert cluster.get(ref(NAMESPACE)) is not None
    await cluster.set_finalizers(ref(held), [])
    assert cluster.all() == []


async def test_objects_outlive_the_process_and_their_status_does_not(
    cluster: LocalCluster, reopen: Callable[[], LocalCluster]
) -> None:
    live = await cluster.apply(config_map(a="1"))
    await cluster.apply_status(ref(live), {"ready": True})
    again = reopen()
    kept = again.get(ref(live))
    assert kept is not None
    assert (kept["metadata"]["uid"], kept["data"]) == (live["metadata"]["uid"], {"a": "1"})
    assert "status" not in kept
    # What was applied before is still known, so that it can be removed.
    assert "data" not in await again.apply({k: v for k, v in config_map().items() if k != "data"})


async def test_versions_go_on_where_they_were(cluster: LocalCluster, reopen: Callable[[], LocalCluster]) -> None:
    live = await cluster.apply(config_map(a="1"))
    again = await reopen().apply(config_map(a="2"))
    assert int(again["metadata"]["resourceVersion"]) > int(live["metadata"]["resourceVersion"])


async def test_a_subscriber_hears_of_everything_there_is_and_of_every_change(cluster: LocalCluster) -> None:
    live = await cluster.apply(config_map())
    heard: list[tuple[str, Any]] = []
    cluster.subscribe(lambda m: heard.append((m["metadata"]["name"], m["metadata"].get("deletionTimestamp"))))
    assert [name for name, _ in heard] == ["acme", "settings"]
    await cluster.delete(ref(live), live["metadata"]["uid"])
    assert heard[-1][0] == "settings"
    assert heard[-1][1]


async def test_plain_text_of_a_secret_is_stored_encoded_as_an_api_server_does(cluster: LocalCluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "acme"}}
    live = await cluster.apply(secret | {"stringData": {"key": "value"}}, USER)
    assert live["data"] == {"key": "dmFsdWU="}
    assert "stringData" not in live


async def test_an_object_of_ours_gets_its_defaults_and_is_refused_like_by_an_api_server(cluster: LocalCluster) -> None:
    tenant: Manifest = {"apiVersion": "loam.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    live = await cluster.apply(tenant | {"spec": {"budget": {"monthlyUsd": "5"}}}, USER)
    assert live["spec"]["budget"]["alertPercents"] == [50, 80, 100]
    with pytest.raises(InvalidRequestError, match=r"spec\.budget\.monthlyUsd: Invalid value: \"-5\""):
        await cluster.apply(tenant | {"spec": {"budget": {"monthlyUsd": "-5"}}}, USER)
