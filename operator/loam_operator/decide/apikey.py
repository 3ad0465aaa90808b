"""What is to be done about an ApiKey's Secret."""

from datetime import datetime, timedelta
from typing import Literal

from loam_operator.decide.facts import READY, Fact, fails
from loam_operator.keys import StoredKey, is_owned, stored
from loam_operator.names import is_reserved_secret
from loam_operator.seen import SeenApiKey

Action = Literal["Create", "Replace", "Rotate", "Keep"]


def obstacle(seen: SeenApiKey) -> Fact | None:
    """Why no key can be made, if so."""
    if seen.tenant is None or seen.tenant.metadata.deletion_timestamp:
        namespace = seen.key.metadata.namespace
        return fails(READY, "NoTenant", f'namespace "{namespace}" is of no tenant, so the key would open nothing')
    if seen.tenant.status.namespace is None:
        message = f'tenant "{seen.tenant.metadata.name}" has no namespace of its own yet'
        return fails(READY, "TenantNotReady", message)
    if is_reserved_secret(seen.key.spec.secret_name):
        name = seen.key.spec.secret_name
        message = f'Secret "{name}" is one of Loam\'s own names (loam-…, …-gateway-key); name another'
        return fails(READY, "SecretNameReserved", message)
    if seen.secret is not None and not is_owned(seen.secret, seen.key.metadata.uid):
        name = seen.key.spec.secret_name
        message = f'Secret "{name}" was not made for this ApiKey and is left alone; name another in spec.secretName'
        return fails(READY, "SecretNotOwned", message)
    return None


def action(seen: SeenApiKey) -> Action:
    """Create where there is no Secret, Replace a key that was edited, Rotate one that is due, else Keep."""
    if seen.secret is None:
        return "Create"
    key = stored(seen.secret)
    if key is None:
        return "Replace"
    due = next_rotation(seen, key)
    return "Rotate" if due is not None and due <= seen.now else "Keep"


def next_rotation(seen: SeenApiKey, key: StoredKey) -> datetime | None:
    """When the key's turn is over; None when it has no end."""
    rotation = seen.key.spec.rotation
    return key.created + timedelta(days=rotation.every_days) if rotation else None


def overlap_end(seen: SeenApiKey) -> datetime:
    """Until when a key that is replaced now still works."""
    rotation = seen.key.spec.rotation
    return seen.now + timedelta(hours=rotation.overlap_hours if rotation else 0)


def look_again(seen: SeenApiKey, key: StoredKey) -> float | None:
    """Seconds until something falls due: the end of an overlap, or the next rotation."""
    moments = [moment for moment in (key.previous_expires, next_rotation(seen, key)) if moment and moment > seen.now]
    return (min(moments) - seen.now).total_seconds() if moments else None
