"""ModelRoute: the gateway knows the model, its price and its fallbacks."""

from loam_operator.api.v1alpha1.modelroute import ModelRouteStatus
from loam_operator.apply import status
from loam_operator.cluster import Ref
from loam_operator.decide.facts import Fact, conditions, fails, holds, ready
from loam_operator.decide.modelroute import decide
from loam_operator.observe.modelroute import observe
from loam_operator.reconcile.context import DONE, RETRY, Context, Outcome, reason_of
from loam_operator.render.modelroute import render
from loam_operator.seen import SeenModelRoute
from loam_shared.errors import LoamError


async def reconcile(context: Context, ref: Ref) -> Outcome:
    """Make the gateway's model what the manifest says."""
    seen = observe(context.cluster, ref.name, context.platform.namespace)
    if seen is None:
        return DONE
    if seen.route.metadata.deletion_timestamp:
        return await _finalize(context, seen)
    await status.hold(context.cluster, seen.route)
    pushed = await _push(context, seen)
    await _report(context, seen, pushed)
    return DONE if pushed.status == "True" else RETRY


async def _push(context: Context, seen: SeenModelRoute) -> Fact:
    try:
        await context.pushes.model(seen.route.metadata.name, render(seen))
    except LoamError as error:
        return fails("GatewayReady", reason_of(error), error.message)
    return holds("GatewayReady", "Registered")


async def _report(context: Context, seen: SeenModelRoute, pushed: Fact) -> None:
    facts = [*decide(seen), pushed]
    metadata = seen.route.metadata
    whole = conditions(
        [ready(facts), *facts],
        seen.route.status.conditions,
        generation=metadata.generation,
        now=context.clock(),
    )
    await status.write(
        context.cluster, seen.route, ModelRouteStatus(observed_generation=metadata.generation, conditions=whole)
    )


async def _finalize(context: Context, seen: SeenModelRoute) -> Outcome:
    name = seen.route.metadata.name
    if not await context.cluster.kind_is_going(seen.route.kind):
        await context.pushes.gateway.delete_model(name)
        context.pushes.forget("model", name)
    await status.release(context.cluster, seen.route)
    return DONE
