"""Tenant: its namespace with all that isolates it, its account at the gateway, its storage."""

from loam_operator.api.v1alpha1 import API_VERSION
from loam_operator.api.v1alpha1.tenant import TenantStatus
from loam_operator.apply import status
from loam_operator.apply.children import apply_all, children, prune
from loam_operator.cluster import Ref
from loam_operator.decide import tenant as decide
from loam_operator.decide.facts import Fact, conditions, fails, holds, ready
from loam_operator.decide.templates import Found, templates
from loam_operator.labels import OWNER_UID
from loam_operator.observe.tenant import observe
from loam_operator.reconcile.context import DONE, RETRY, Context, Outcome, reason_of
from loam_operator.render import tenant as render
from loam_operator.seen import SeenTenant
from loam_shared.contracts.admin import TenantState
from loam_shared.errors import LoamError

_LIVING_IN = ("Agent", "AgentTool", "RagPipeline", "ApiKey")
_SOON = Outcome(after=1)


async def reconcile(context: Context, ref: Ref) -> Outcome:
    """Make the tenant's place what the manifest says."""
    seen = observe(context.cluster, ref.name, context.platform)
    if seen is None:
        return DONE
    if seen.tenant.metadata.deletion_timestamp:
        return await _finalize(context, seen)
    await status.hold(context.cluster, seen.tenant)
    place = decide.namespace(seen, context.platform)
    found = templates(seen, place)
    state, pushed = await _push(context, seen, found)
    if place.status == "True":
        place = await _apply(context, seen, state, place)
    await _report(context, seen, state, [place, pushed], found)
    return DONE if place.status == pushed.status == "True" else RETRY


async def _push(context: Context, seen: SeenTenant, found: Found) -> tuple[TenantState | None, Fact]:
    name, state = seen.tenant.metadata.name, None
    try:
        state = await context.pushes.tenant(name, render.put(seen))
        await context.pushes.templates(name, render.put_templates(seen, found.good))
    except LoamError as error:
        return state, fails("GatewayReady", reason_of(error), error.message)
    return state, holds("GatewayReady", "Registered")


async def _apply(context: Context, seen: SeenTenant, state: TenantState | None, place: Fact) -> Fact:
    manifests = render.render(seen, decide.origin(seen), context.platform)
    if state is not None:
        manifests.append(render.storage(seen, state.storage))
    try:
        await apply_all(context.cluster, manifests)
        if state is not None:
            await prune(context.cluster, seen.tenant, seen.namespace, keep=manifests)
    except LoamError as error:
        return fails(place.type, reason_of(error), error.message)
    return place


async def _report(
    context: Context, seen: SeenTenant, state: TenantState | None, done: list[Fact], found: Found
) -> None:
    tenant, before = seen.tenant, seen.tenant.status
    spend = context.reports.tenants.get(tenant.metadata.name) or (state.spend if state else None)
    alerts = context.reports.alerts.get(tenant.metadata.name) or (state.alerts if state else None)
    facts = [*done, *decide.needs(seen), decide.active(seen)]
    whole = [ready(facts), *facts, decide.within_budget(spend), decide.alerts(seen, alerts), found.fact]
    generation = tenant.metadata.generation
    now = TenantStatus(
        observed_generation=generation,
        namespace=seen.namespace if done[0].status == "True" else before.namespace,
        endpoint=f"{context.platform.gateway_public_url}/v1",
        spend=decide.spend_status(spend, before.spend),
        conditions=conditions(whole, before.conditions, generation=generation, now=context.clock()),
    )
    await status.write(context.cluster, tenant, now)


async def _finalize(context: Context, seen: SeenTenant) -> Outcome:
    """Remove what lives in the namespace, then the data as the manifest says, and only then let the Tenant go."""
    tenant = seen.tenant
    if not await context.cluster.kind_is_going(tenant.kind):
        if await _is_inhabited(context, seen):
            return _SOON
        if not await _is_purged(context, seen):
            return _SOON
        for topic in ("tenant", "templates"):
            context.pushes.forget(topic, tenant.metadata.name)
        if await _has_place(context, seen):
            return _SOON
    await status.release(context.cluster, tenant)
    return DONE


async def _is_purged(context: Context, seen: SeenTenant) -> bool:
    """Ask the gateway to end the tenant; True once it has. What keeps it from that is said in the status."""
    metadata, policy = seen.tenant.metadata, seen.tenant.spec.storage.deletion_policy
    try:
        return await context.pushes.gateway.delete_tenant(metadata.name, metadata.uid, policy)
    except LoamError as error:
        waiting = fails("GatewayReady", reason_of(error), error.message)
        place = decide.namespace(seen, context.platform)
        await _report(context, seen, None, [place, waiting], templates(seen, place))
        raise


async def _is_inhabited(context: Context, seen: SeenTenant) -> bool:
    """Ask the tenant's own objects to go; each cleans up after itself."""
    if not _is_its_own(seen):
        return False
    left = [
        manifest
        for kind in _LIVING_IN
        for manifest in context.cluster.list(API_VERSION, kind, namespace=seen.namespace)
    ]
    for manifest in left:
        if not manifest["metadata"].get("deletionTimestamp"):
            await context.cluster.delete(Ref.of(manifest), manifest["metadata"]["uid"])
    return bool(left)


async def _has_place(context: Context, seen: SeenTenant) -> bool:
    """Remove the namespace if the operator made it, else what it made in there; True while that takes."""
    live = seen.live_namespace
    if live is None or not _is_its_own(seen):
        return False
    if decide.origin(seen) == "Created":
        if not live["metadata"].get("deletionTimestamp"):
            await context.cluster.delete(Ref.of(live), live["metadata"]["uid"])
        return True
    await prune(context.cluster, seen.tenant, seen.namespace)
    if any(children(context.cluster, seen.tenant, seen.namespace)):
        return True
    bare = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {"name": seen.namespace}}
    await context.cluster.apply(bare)
    return False


def _is_its_own(seen: SeenTenant) -> bool:
    """Whether the namespace was this very Tenant's."""
    live = seen.live_namespace
    if live is None:
        return False
    owner: str | None = live["metadata"].get("annotations", {}).get(OWNER_UID)
    return owner == seen.tenant.metadata.uid
