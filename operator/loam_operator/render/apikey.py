"""An ApiKey's Secret, and the key as the gateway is told of it."""

from datetime import datetime

from loam_operator.api.v1alpha1 import ApiKey, Resource
from loam_operator.cluster import Manifest
from loam_operator.keys import DATA_KEY, StoredKey
from loam_operator.render.metadata import manifest, metadata, opaque
from loam_shared.contracts.admin import KeyPut


def secret(owner: Resource, tenant: str, name: str, key: StoredKey) -> Manifest:
    """The Secret that holds a key, with all that the gateway is to know of it in its annotations."""
    meta = metadata(owner, tenant, name, namespace=owner.metadata.namespace, annotations=key.annotations())
    return manifest("v1", "Secret", meta, **opaque({DATA_KEY: key.key}))


def put(api_key: ApiKey, key: StoredKey, now: datetime) -> KeyPut:
    """The key as the gateway is told of it: hashes only."""
    spec = api_key.spec
    return KeyPut(
        name=api_key.metadata.name,
        hashes=key.hashes(now),
        scopes=tuple(spec.scopes),
        monthly_usd=spec.budget.monthly_usd,
        user=spec.user,
    )
