"""Decisions, from what was seen alone."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from loam_operator.api.v1alpha1 import Condition
from loam_operator.cluster import Ref
from loam_operator.decide import apikey, facts, pipeline, tenant
from loam_operator.keys import StoredKey
from loam_operator.observe import apikey as observe_key
from loam_operator.observe import pipeline as observe_pipeline
from loam_operator.observe import tenant as observe_tenant
from loam_operator.render import pipeline as render_pipeline
from loam_operator.render.apikey import secret as render_secret
from loam_operator.settings import Platform
from loam_shared.contracts import admin

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
API = "loam.dev/v1alpha1"
TENANT = Ref(API, "Tenant", "acme")
KEY = Ref(API, "ApiKey", "backend", "acme")
PIPELINE = Ref(API, "RagPipeline", "handbook", "acme")
NAMESPACE = Ref("v1", "Namespace", "acme")
OURS = {"loam.dev/owner-uid": "uid-of-acme"}


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (None, "Created"),
        ({"labels": {"loam.dev/tenant": "acme"}}, "Adopted"),
        ({"labels": {"loam.dev/tenant": "acme"}, "annotations": OURS | {"loam.dev/origin": "Created"}}, "Created"),
        ({"labels": {}, "annotations": OURS | {"loam.dev/origin": "Created"}}, "Created"),
        ({"labels": {"loam.dev/tenant": "acme"}, "annotations": {"loam.dev/owner-uid": "gone"}}, "Adopted"),
        ({"labels": {}}, "NamespaceNotOurs"),
        ({"labels": {"loam.dev/tenant": "other"}}, "NamespaceOwnedByOther"),
        ({"labels": {"loam.dev/tenant": "acme"}, "deletionTimestamp": "2026-11-21T12:00:00Z"}, "NamespaceTerminating"),
    ],
)
def test_a_namespace_is_made_or_adopted_only_when_it_is_this_tenants(acme, metadata: dict | None, reason: str) -> None:
    del acme.objects[NAMESPACE]
    if metadata is not None:
        acme.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acme", **metadata}})
    seen = observe_tenant.observe(acme, "acme", Platform())
    assert tenant.namespace(seen, Platform()).reason == reason


@pytest.mark.parametrize("name", ["kube-system", "default", "loam-system"])
def test_namespaces_of_the_platform_are_never_a_tenants(acme, name: str) -> None:
    seen = observe_tenant.observe(acme, "acme", Platform())
    assert tenant.namespace(replace(seen, namespace=name), Platform()).reason == "NamespaceReserved"


def test_spend_moves_in_the_status_only_when_an_amount_does() -> None:
    first = tenant.spend_status(admin.Spend(month_usd="1", day_usd="1", as_of=NOW, within_budget=True), None)
    later = admin.Spend(month_usd="1", day_usd="1", as_of=NOW + timedelta(hours=1), within_budget=True)
    assert tenant.spend_status(later, first) == first
    assert tenant.spend_status(later.model_copy(update={"day_usd": "2"}), first).as_of == later.as_of


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    old = Condition(type="Ready", status="True", reason="Ready", last_transition_time=NOW - timedelta(days=1))
    [same] = facts.conditions([facts.holds("Ready", "Fine")], [old], generation=3, now=NOW)
    assert (same.last_transition_time, same.reason, same.observed_generation) == (old.last_transition_time, "Fine", 3)
    [other] = facts.conditions([facts.fails("Ready", "Broken", "why")], [old], generation=3, now=NOW)
    assert other.last_transition_time == NOW


def test_ready_names_the_first_thing_that_is_wrong() -> None:
    found = facts.ready([facts.holds("A", "Ok"), facts.fails("B", "Bad", "why"), facts.fails("C", "Worse", "too")])
    assert (found.status, found.reason, found.message) == ("False", "Bad", "why")


def seen_pipeline(acme, retrieval: dict, *rerankers: str):
    """The sample's RagPipeline with this `retrieval`, of a tenant that has these rerankers among its models."""
    named = {"apiVersion": API, "kind": "ModelRoute"}
    for name in rerankers:
        spec = {"provider": "Bedrock", "modelId": "cohere.rerank-v3-5:0", "regions": ["us-east-1"]}
        priced = spec | {"capabilities": ["Rerank"], "price": {"perThousandQueries": "2.00"}}
        acme.objects[Ref(API, "ModelRoute", name)] = named | {"metadata": {"name": name, "uid": name}, "spec": priced}
    tenant = acme.objects[TENANT]
    models = [*tenant["spec"]["models"], *rerankers]
    storage = {"metadata": {"name": "loam-storage", "namespace": "acme"}}
    acme.objects[Ref("v1", "Secret", "loam-storage", "acme")] = {"apiVersion": "v1", "kind": "Secret"} | storage
    acme.objects[TENANT] = tenant | {"spec": tenant["spec"] | {"models": models}, "status": {"namespace": "acme"}}
    live = acme.objects[PIPELINE]
    acme.objects[PIPELINE] = live | {"spec": live["spec"] | {"retrieval": retrieval}}
    return observe_pipeline.observe(acme, PIPELINE, Platform())


ON = {"rerank": {"enabled": True}}


@pytest.mark.parametrize(
    ("asked", "rerankers", "used", "said"),
    [
        ({}, [], None, ""),
        ({"queryExpansion": {"enabled": True}}, [], None, ""),
        ({"rerank": {"enabled": False, "model": "cohere"}}, ["cohere"], None, ""),
        (ON, ["cohere"], "cohere", ""),
        (ON, [], None, "needs a ModelRoute with the capability Rerank"),
        (ON, ["amazon", "cohere"], None, "name one of the tenant's rerankers, amazon, cohere"),
        ({"rerank": {"enabled": True, "model": "cohere"}}, ["amazon", "cohere"], "cohere", ""),
    ],
)
def test_the_tenants_only_reranker_is_taken_and_the_status_says_where_one_must_be_named(
    acme, asked: dict, rerankers: list[str], used: str | None, said: str
) -> None:
    seen = seen_pipeline(acme, asked, *rerankers)
    assert pipeline.obstacle(seen) is None
    assert said in pipeline.left_out(seen)
    assert bool(said) == bool(pipeline.left_out(seen))
    told = render_pipeline.put(seen, "http://pod").spec["retrieval"]["rerank"]
    assert told.get("model") == used
    held = render_pipeline.configuration_map(seen, "acme")["data"]["pipeline.json"]
    assert json.loads(held)["retrieval"]["rerank"] == told


@pytest.mark.parametrize(
    ("model", "reason"),
    [("nobody", "ModelMissing"), ("claude-haiku", "ModelCannotRerank"), ("elsewhere", "ModelNotAllowed")],
)
def test_a_reranker_that_cannot_be_used_is_refused_by_name(acme, model: str, reason: str) -> None:
    seen = seen_pipeline(acme, {"rerank": {"enabled": True, "model": model}}, "elsewhere")
    tenant = seen.tenant.model_copy(
        update={"spec": seen.tenant.spec.model_copy(update={"models": acme.objects[TENANT]["spec"]["models"][:-1]})}
    )
    fact = pipeline.obstacle(replace(seen, tenant=tenant))
    assert (fact.status, fact.reason) == ("False", reason)
    assert "spec.retrieval.rerank.model" in fact.message or "capability Rerank" in fact.message


def seen_key(acme, key: StoredKey | None):
    """The sample's ApiKey with its tenant ready, and with this key in its Secret."""
    acme.objects[TENANT] = acme.objects[TENANT] | {"status": {"namespace": "acme"}}
    seen = observe_key.observe(acme, KEY, Platform(), NOW)
    return replace(seen, secret=render_secret(seen.key, "acme", "backend-key", key) if key else None)


@pytest.mark.parametrize(
    ("age_days", "action"), [(None, "Create"), (0, "Keep"), (89, "Keep"), (90, "Rotate"), (400, "Rotate")]
)
def test_a_key_is_made_once_and_rotated_when_due(acme, age_days: int | None, action: str) -> None:
    key = None if age_days is None else StoredKey("loam_x", NOW - timedelta(days=age_days))
    assert apikey.action(seen_key(acme, key)) == action


def test_a_key_that_was_edited_by_hand_is_replaced(acme) -> None:
    seen = seen_key(acme, StoredKey("loam_x", NOW))
    seen.secret["data"]["key"] = base64.b64encode(b"loam_y").decode()
    assert apikey.action(seen) == "Replace"


def test_a_rotated_key_leaves_the_old_one_working_for_the_overlap_only(acme) -> None:
    seen = seen_key(acme, StoredKey("loam_x", NOW - timedelta(days=90)))
    key = StoredKey("loam_x", NOW).followed_by("loam_y", NOW, apikey.overlap_end(seen))
    assert [held.expires_at for held in key.hashes(NOW)] == [None, NOW + timedelta(hours=24)]
    assert len(key.hashes(NOW + timedelta(hours=24))) == 1
    assert apikey.look_again(seen, key) == timedelta(hours=24).total_seconds()


@pytest.mark.parametrize("name", ["loam-storage", "loam-later", "handbook-gateway-key"])
def test_a_key_never_takes_a_name_that_the_operator_itself_will_need(acme, name: str) -> None:
    seen = seen_key(acme, None)
    taking = seen.key.model_copy(update={"spec": seen.key.spec.model_copy(update={"secret_name": name})})
    assert apikey.obstacle(seen) is None
    assert apikey.obstacle(replace(seen, key=taking)).reason == "SecretNameReserved"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda acme: acme.objects.pop(TENANT), "NoTenant"),
        (lambda acme: acme.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acme"}}), "NoTenant"),
        (lambda acme: None, "TenantNotReady"),
    ],
)
def test_no_key_is_made_where_it_would_open_nothing(acme, change: Callable, reason: str) -> None:
    change(acme)
    obstacle = apikey.obstacle(observe_key.observe(acme, KEY, Platform(), NOW))
    assert obstacle is not None
    assert obstacle.reason == reason


PIPELINE = Ref(API, "RagPipeline", "handbook", "acme")


@pytest.mark.parametrize(
    ("state", "replicas", "status", "reason"),
    [
        (None, 1, "Unknown", "NotRead"),
        (admin.PipelineState(documents=3, pending=1), 1, "False", "Indexing"),
        (admin.PipelineState(documents=3, pending=1), 0, "False", "WorkerStarting"),
        (admin.PipelineState(documents=3, failed=2), 0, "False", "DocumentsFailed"),
        (admin.PipelineState(documents=3, chunks=9), 0, "True", "Indexed"),
    ],
)
def test_indexed_tells_how_far_the_documents_are(
    acme, state: admin.PipelineState | None, replicas: int, status: str, reason: str
) -> None:
    seen = observe_pipeline.observe(acme, PIPELINE, Platform())
    worker = {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "availableReplicas": replicas}}
    fact = pipeline.indexed(replace(seen, ingestion=worker), state)
    assert (fact.status, fact.reason) == (status, reason)
