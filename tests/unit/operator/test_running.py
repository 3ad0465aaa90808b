"""What of a pipeline runs: who answers while the mode changes, and when its ingestion worker rests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loam_operator.api.v1alpha1 import RagPipeline, Tenant
from loam_operator.cluster import Ref
from loam_operator.decide import pipeline as decide
from loam_operator.decide.facts import holds
from loam_operator.decide.running import Answering, answering, workers
from loam_operator.observe import pipeline as observe
from loam_operator.reconcile.context import Reports
from loam_operator.render import pipeline as render
from loam_operator.seen import SeenPipeline
from loam_operator.settings import Platform
from loam_shared.contracts.admin import PipelineState

PIPELINE = Ref("loam.dev/v1alpha1", "RagPipeline", "handbook", "acme")
TENANT = Ref("loam.dev/v1alpha1", "Tenant", "acme")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LIMIT = timedelta(seconds=300)
POOL, OWN, OWN_SOON = (
    Answering(pool=True, own_pods=False),
    Answering(pool=False, own_pods=True),
    Answering(pool=True, own_pods=True),
)


def deployment(available: int, replicas: int = 1) -> dict[str, Any]:
    status = {"observedGeneration": 1, "availableReplicas": available}
    return {"metadata": {"name": "d", "generation": 1}, "spec": {"replicas": replicas}, "status": status}


UP, STARTING = deployment(1), deployment(0)


def seen(acme, mode: str = "Dedicated", serving: str = "", **parts: Any) -> SeenPipeline:
    """The sample in a mode, with what its condition Serving said last."""
    manifest = acme.objects[PIPELINE]
    spec = manifest["spec"] | {"serving": manifest["spec"]["serving"] | {"mode": mode}}
    since = {"lastTransitionTime": "2026-11-21T12:00:00Z", "observedGeneration": 1}
    said = {"type": "Serving", "status": "True", "reason": serving, **since}
    status = {"conditions": [said]} if serving else {}
    pipeline = RagPipeline.read(manifest | {"spec": spec, "status": status})
    return replace(observe.observe(acme, PIPELINE, Platform()), pipeline=pipeline, **parts)


@pytest.mark.parametrize(
    ("mode", "said", "own", "pool", "who"),
    [
        ("Dedicated", "", None, None, OWN),
        ("Dedicated", "PodsReady", STARTING, UP, OWN),
        ("Dedicated", "PoolServes", None, UP, OWN_SOON),
        ("Dedicated", "PoolServes", STARTING, UP, OWN_SOON),
        ("Dedicated", "PoolServes", UP, UP, OWN),
        ("Shared", "", None, None, POOL),
        ("Shared", "", None, STARTING, POOL),
        ("Shared", "PodsReady", UP, STARTING, OWN),
        ("Shared", "PodsReady", UP, UP, POOL),
        ("Shared", "PodsReady", UP, None, POOL),
        ("Shared", "PodsReady", STARTING, STARTING, POOL),
    ],
)
def test_while_the_mode_changes_the_one_answers_that_can(acme, mode, said, own, pool, who) -> None:
    assert answering(seen(acme, mode, said, retrieval=own, pool=pool)) == who


@pytest.mark.parametrize(
    ("mode", "said", "own", "pool", "status", "reason"),
    [
        ("Dedicated", "", UP, None, "True", "PodsReady"),
        ("Dedicated", "", STARTING, None, "False", "PodsStarting"),
        ("Dedicated", "PoolServes", STARTING, UP, "True", "PoolServes"),
        ("Shared", "", None, UP, "True", "PoolServes"),
        ("Shared", "", None, None, "True", "PoolServes"),
        ("Shared", "", None, STARTING, "False", "PoolStarting"),
        ("Shared", "PodsReady", UP, STARTING, "True", "PodsReady"),
    ],
)
def test_serving_says_who_answers_whatever_the_worker_does(acme, mode, said, own, pool, status, reason) -> None:
    fact = decide.serving(seen(acme, mode, said, retrieval=own, pool=pool), holds("Accepted", "Accepted"))
    assert (fact.status, fact.reason) == (status, reason)


def test_a_shared_pipeline_has_no_object_that_answers(acme) -> None:
    made = render.render(seen(acme, "Shared"), "acme", Platform(), own_pods=False)
    assert {(one["kind"], one["metadata"]["name"]) for one in made} == {
        ("ConfigMap", "handbook-pipeline"),
        ("ServiceAccount", "handbook-ingestion"),
        ("Deployment", "handbook-ingestion"),
    }


@pytest.mark.parametrize(("data", "reason"), [({}, "NoStorageLogin"), ({"AWS_ACCESS_KEY_ID": "QQ=="}, None)])
def test_a_shared_pipeline_needs_a_login_that_can_be_passed_on(acme, data, reason) -> None:
    maps = {"faq": {"metadata": {"name": "faq"}}}
    shared = seen(acme, "Shared", storage_secret={"metadata": {}, "data": data}, config_maps=maps)
    obstacle = decide.obstacle(shared)
    assert (obstacle and obstacle.reason) == reason


IDLE, BUSY = PipelineState(documents=3), PipelineState(documents=3, queued=1)


@pytest.mark.parametrize(
    ("state", "live", "idle", "wanted"),
    [
        (BUSY, None, 0, 1),
        (BUSY, deployment(0, 0), 0, 1),
        (PipelineState(documents=3, pending=1), deployment(0, 0), 0, 1),
        (IDLE, deployment(1), 0, 1),
        (IDLE, deployment(1), 299, 1),
        (IDLE, deployment(1), 300, 0),
        (IDLE, deployment(0, 0), 0, 0),
        (IDLE, deployment(0, 0), 3000, 0),
        (IDLE, None, 0, 0),
    ],
)
def test_a_worker_rests_after_a_while_without_work_and_only_work_wakes_it(acme, state, live, idle, wanted) -> None:
    assert workers(seen(acme, ingestion=live), state, timedelta(seconds=idle), LIMIT) == wanted


def test_a_suspended_tenant_has_no_worker_whatever_waits(acme) -> None:
    manifest = acme.objects[TENANT]
    tenant = Tenant.read(manifest | {"spec": manifest["spec"] | {"suspended": True}})
    assert workers(seen(acme, tenant=tenant, ingestion=deployment(1)), BUSY, timedelta(), LIMIT) == 0


def test_idle_time_counts_from_the_first_look_without_work() -> None:
    reports = Reports()
    later = NOW + timedelta(seconds=40)
    assert reports.idle("acme/handbook", NOW, works=False) == timedelta()
    assert reports.idle("acme/handbook", later, works=False) == timedelta(seconds=40)
    assert reports.idle("acme/handbook", later, works=True) == timedelta()
    assert reports.idle("acme/handbook", later, works=False) == timedelta()
