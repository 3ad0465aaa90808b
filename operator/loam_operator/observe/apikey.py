"""Reads what an ApiKey depends on."""

from datetime import datetime

from loam_operator.api.v1alpha1 import ApiKey
from loam_operator.cluster import Cluster, Ref
from loam_operator.observe.world import read, secret, tenant_of
from loam_operator.seen import SeenApiKey
from loam_operator.settings import Platform


def observe(cluster: Cluster, ref: Ref, platform: Platform, now: datetime) -> SeenApiKey | None:
    """Everything about one ApiKey; None when it is gone."""
    key = read(cluster, ApiKey, ref.name, ref.namespace)
    if key is None:
        return None
    tenant = tenant_of(cluster, ref.namespace, platform)
    return SeenApiKey(key, tenant, secret(cluster, key.spec.secret_name, ref.namespace), now)
