"""ApiKey: a Secret with the key, and its hash at the gateway, in this order, so that no key is ever lost."""

from loam_operator.api.v1alpha1.apikey import ApiKeyStatus
from loam_operator.apply import status
from loam_operator.apply.children import prune
from loam_operator.apply.secrets import write_key
from loam_operator.cluster import Ref
from loam_operator.decide import apikey as decide
from loam_operator.decide.facts import READY, Fact, conditions, fails, holds
from loam_operator.keys import StoredKey, stored
from loam_operator.observe.apikey import observe
from loam_operator.reconcile.context import DONE, RETRY, Context, Outcome, reason_of
from loam_operator.render import apikey as render
from loam_operator.seen import SeenApiKey
from loam_shared.credentials import new_api_key
from loam_shared.errors import LoamError


async def reconcile(context: Context, ref: Ref) -> Outcome:
    """Make the key what the manifest says."""
    seen = observe(context.cluster, ref, context.platform, context.clock())
    if seen is None:
        return DONE
    if seen.key.metadata.deletion_timestamp:
        return await _finalize(context, seen)
    obstacle = decide.obstacle(seen)
    if obstacle is not None or seen.tenant is None:
        await _report(context, seen, obstacle or fails(READY, "NoTenant", ""), None)
        return DONE
    await status.hold(context.cluster, seen.key)
    tenant = seen.tenant.metadata.name
    key = await _write(context, seen, tenant)
    fact = await _push(context, seen, tenant, key)
    await _report(context, seen, fact, key)
    return Outcome(after=decide.look_again(seen, key)) if fact.status == "True" else RETRY


async def _write(context: Context, seen: SeenApiKey, tenant: str) -> StoredKey:
    """The key as it stands in its Secret from here on. Killed right after this, it goes on from there."""
    action = decide.action(seen)
    key = _next(seen, action)
    secret = render.secret(seen.key, tenant, seen.key.spec.secret_name, key)
    await write_key(context.cluster, secret, seen.secret, replaces=action != "Keep")
    return key


def _next(seen: SeenApiKey, action: decide.Action) -> StoredKey:
    present = stored(seen.secret) if seen.secret else None
    if present is None:
        return StoredKey(new_api_key(), seen.now)
    if action == "Rotate":
        return present.followed_by(new_api_key(), seen.now, decide.overlap_end(seen))
    return present.without_expired(seen.now)


async def _push(context: Context, seen: SeenApiKey, tenant: str, key: StoredKey) -> Fact:
    put = render.put(seen.key, key, seen.now)
    try:
        await context.pushes.key(tenant, seen.key.metadata.uid, put)
    except LoamError as error:
        return fails(READY, reason_of(error), error.message)
    return holds(READY, "Ready", f'Secret "{seen.key.spec.secret_name}" holds the key')


async def _report(context: Context, seen: SeenApiKey, fact: Fact, key: StoredKey | None) -> None:
    metadata, before = seen.key.metadata, seen.key.status
    said = ApiKeyStatus(
        observed_generation=metadata.generation,
        key_id=metadata.uid,
        rotated_at=key.created if key else before.rotated_at,
        next_rotation_time=decide.next_rotation(seen, key) if key else before.next_rotation_time,
        previous_expires_at=key.previous_expires if key else before.previous_expires_at,
        conditions=conditions([fact], before.conditions, generation=metadata.generation, now=seen.now),
    )
    await status.write(context.cluster, seen.key, said)


async def _finalize(context: Context, seen: SeenApiKey) -> Outcome:
    metadata = seen.key.metadata
    if not await context.cluster.kind_is_going(seen.key.kind):
        if seen.tenant is not None:
            tenant = seen.tenant.metadata.name
            await context.pushes.gateway.delete_key(tenant, metadata.uid)
            context.pushes.forget("key", tenant, metadata.uid)
        await prune(context.cluster, seen.key, metadata.namespace)
    await status.release(context.cluster, seen.key)
    return DONE
