"""What of a pipeline is to run now: who answers its questions, and whether its ingestion worker is needed. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from loam_operator.seen import SeenPipeline
from loam_shared.contracts.admin import PipelineState

POOL_SERVES = "PoolServes"
"""The reason of the condition Serving by which a later look knows that the pool has been answering."""


@dataclass(frozen=True, slots=True)
class Answering:
    """`pool`: the platform's pool is asked, not the pipeline's own pods. `own_pods`: it is to have such.

    Both hold while a pipeline that the pool served gets pods of its own, so that there is always somebody who answers.
    """

    pool: bool
    own_pods: bool


def answering(seen: SeenPipeline) -> Answering:
    """Who answers: as the manifest says, once those are there who are to take over."""
    own_answer = is_available(seen.retrieval)
    if seen.pipeline.spec.serving.mode == "Dedicated":
        return Answering(pool=not own_answer and _has_been_pooled(seen), own_pods=True)
    stays = own_answer and is_pool_starting(seen)
    return Answering(pool=not stays, own_pods=stays)


def workers(seen: SeenPipeline, state: PipelineState, idle: timedelta, limit: timedelta) -> int:
    """How many ingest: one or none. `idle` is how long there has been nothing to do, `limit` how long that may last.

    A worker that rests goes on resting until there is work, so an operator that has just started wakes nobody.
    """
    if is_suspended(seen):
        return 0
    if has_work(state):
        return 1
    runs = seen.ingestion is not None and seen.ingestion["spec"].get("replicas", 1) > 0
    return 1 if runs and idle < limit else 0


def has_work(state: PipelineState) -> bool:
    """Whether there is something for an ingestion worker to do."""
    return state.queued > 0 or state.pending > 0


def is_available(deployment: dict[str, Any] | None) -> bool:
    """Whether a pod of the Deployment, as it now is, answers."""
    status = (deployment or {}).get("status") or {}
    if deployment is None or status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return False
    return bool(status.get("availableReplicas", 0) >= 1)


def is_pool_starting(seen: SeenPipeline) -> bool:
    """Whether the pool is known not to answer yet. Where it is not the operator's to see, it counts as there."""
    return seen.pool is not None and not is_available(seen.pool)


def is_suspended(seen: SeenPipeline) -> bool:
    """Whether nothing of the tenant's is to run."""
    return seen.tenant is not None and seen.tenant.spec.suspended


def _has_been_pooled(seen: SeenPipeline) -> bool:
    return any(
        held.type == "Serving" and held.status == "True" and held.reason == POOL_SERVES
        for held in seen.pipeline.status.conditions
    )
