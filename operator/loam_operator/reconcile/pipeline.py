"""RagPipeline: its pods and what surrounds them, the key they hold, and its documents at the gateway."""

from dataclasses import replace

from loam_operator.api.v1alpha1.ragpipeline import IndexBuild, RagPipelineStatus
from loam_operator.api.v1alpha1.tenant import Tenant
from loam_operator.apply import status
from loam_operator.apply.children import apply_all, prune
from loam_operator.apply.secrets import write_key
from loam_operator.cluster import Manifest, Ref
from loam_operator.decide import pipeline as decide
from loam_operator.decide.facts import Fact, conditions, fails, holds, ready
from loam_operator.decide.running import answering, has_work, is_pool_starting, workers
from loam_operator.keys import StoredKey, stored
from loam_operator.names import RETRIEVAL, SERVICE_PORT, key_secret
from loam_operator.observe.pipeline import observe
from loam_operator.observe.world import secret
from loam_operator.reconcile.context import DONE, RETRY, Context, Outcome, reason_of
from loam_operator.render import apikey as render_key
from loam_operator.render import pipeline as render
from loam_operator.seen import SeenPipeline
from loam_shared.contracts.admin import PipelineState
from loam_shared.credentials import new_api_key
from loam_shared.errors import LoamError

_SOON = Outcome(after=1)


async def reconcile(context: Context, ref: Ref) -> Outcome:
    """Make the pipeline what the manifest says."""
    seen = observe(context.cluster, ref, context.platform)
    if seen is None:
        return DONE
    if seen.pipeline.metadata.deletion_timestamp:
        return await _finalize(context, seen)
    obstacle = decide.obstacle(seen)
    if obstacle is not None or seen.tenant is None:
        # What ran under the last good manifest goes on running.
        await _report(context, seen, obstacle or fails("Accepted", "NoTenant", ""), None)
        return DONE
    await status.hold(context.cluster, seen.pipeline)
    try:
        state, again = await _serve(context, seen, seen.tenant.metadata.name)
    except LoamError as error:
        await _report(context, seen, fails("Accepted", reason_of(error), error.message), None)
        return RETRY
    await _report(context, seen, holds("Accepted", "Accepted"), state)
    return again


async def _serve(context: Context, seen: SeenPipeline, tenant: str) -> tuple[PipelineState, Outcome]:
    """Have it answered and its documents ingested; how far they are, and when to look again."""
    name, namespace = seen.pipeline.metadata.name, seen.pipeline.metadata.namespace
    key_manifest = await _give_key(context, seen, tenant)
    who = answering(seen)
    own_url = context.cluster.url(render.service_ref(seen.pipeline), SERVICE_PORT)
    url = context.platform.retrieval_pool_url if who.pool else own_url
    pushed = await context.pushes.pipeline(tenant, name, render.put(seen, url))
    state = context.reports.pipelines.get(f"{tenant}/{name}") or pushed
    ingesting, again = _ingesting(context, seen, f"{tenant}/{name}", state)
    seen = replace(seen, key_secret=secret(context.cluster, key_secret(name), namespace))
    manifests = render.render(seen, tenant, context.platform, own_pods=who.own_pods, workers=ingesting)
    await apply_all(context.cluster, manifests)
    await prune(context.cluster, seen.pipeline, namespace, keep=[key_manifest, *manifests])
    return state, _SOON if seen.pipeline.spec.serving.mode == "Shared" and is_pool_starting(seen) else again


def _ingesting(context: Context, seen: SeenPipeline, path: str, state: PipelineState) -> tuple[int, Outcome]:
    """How many workers ingest, and when one that has nothing to do may be stopped."""
    idle = context.reports.idle(path, context.clock(), works=has_work(state))
    wanted = workers(seen, state, idle, context.idle_limit)
    if wanted and not has_work(state):
        return wanted, Outcome(after=(context.idle_limit - idle).total_seconds())
    return wanted, DONE


async def _give_key(context: Context, seen: SeenPipeline, tenant: str) -> Manifest:
    """The key of its pods, first in a Secret, then at the gateway, so that none is ever lost."""
    pipeline = seen.pipeline
    present = stored(seen.key_secret) if seen.key_secret else None
    key = present or StoredKey(new_api_key(), context.clock())
    manifest = render_key.secret(pipeline, tenant, key_secret(pipeline.metadata.name), key)
    await write_key(context.cluster, manifest, seen.key_secret, replaces=present is None)
    await context.pushes.key(tenant, pipeline.metadata.uid, render.key_put(pipeline, key))
    return manifest


async def _report(context: Context, seen: SeenPipeline, accepted: Fact, pushed: PipelineState | None) -> None:
    pipeline, before = seen.pipeline, seen.pipeline.status
    tenant = seen.tenant.metadata.name if seen.tenant else ""
    state = context.reports.pipelines.get(f"{tenant}/{pipeline.metadata.name}") or pushed
    facts = [accepted, decide.serving(seen, accepted)]
    whole = [
        ready(facts, decide.left_out(seen)),
        *facts,
        decide.indexed(seen, state),
        decide.synced(pipeline, state),
    ]
    generation = pipeline.metadata.generation
    said = RagPipelineStatus(
        observed_generation=generation,
        documents=state.documents if state else before.documents,
        chunks=state.chunks if state else before.chunks,
        index_version=state.index_version if state else before.index_version,
        building=_building(state) if state else before.building,
        last_sync_time=state.last_sync_time if state else before.last_sync_time,
        endpoint=f"{context.platform.gateway_public_url}/v1/pipelines/{pipeline.metadata.name}",
        replicas=((seen.retrieval or {}).get("status") or {}).get("replicas", 0),
        selector=f"app.kubernetes.io/name=loam-{RETRIEVAL},app.kubernetes.io/instance={pipeline.metadata.name}",
        conditions=conditions(whole, before.conditions, generation=generation, now=context.clock()),
    )
    await status.write(context.cluster, pipeline, said)


def _building(state: PipelineState) -> IndexBuild | None:
    build = state.building
    if build is None:
        return None
    return IndexBuild(version=build.index_version, documents=build.documents, done=build.done)


async def _finalize(context: Context, seen: SeenPipeline) -> Outcome:
    """Stop the pods, then remove the documents and the key at the gateway, then let the pipeline go."""
    metadata = seen.pipeline.metadata
    if not await context.cluster.kind_is_going(seen.pipeline.kind):
        await prune(context.cluster, seen.pipeline, metadata.namespace)
        if seen.tenant is not None:
            tenant = seen.tenant.metadata.name
            await context.pushes.gateway.delete_key(tenant, metadata.uid)
            if not _is_retained(seen.tenant) and not await context.pushes.gateway.delete_pipeline(
                tenant, metadata.name, metadata.uid
            ):
                return _SOON
            context.pushes.forget("key", tenant, metadata.uid)
            context.pushes.forget("pipeline", tenant, metadata.name)
            context.reports.idle_since.pop(f"{tenant}/{metadata.name}", None)
    await status.release(context.cluster, seen.pipeline)
    return DONE


def _is_retained(tenant: Tenant) -> bool:
    """Whether the documents stay: with a Tenant that goes and retains its data they must outlive the pipeline."""
    return tenant.metadata.deletion_timestamp is not None and tenant.spec.storage.deletion_policy == "Retain"
