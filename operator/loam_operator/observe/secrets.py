"""Values of Secrets."""

import base64
import binascii

from loam_operator.api.v1alpha1.common import SecretKeyRef
from loam_operator.cluster import Cluster, Manifest
from loam_operator.observe.world import secret


def value(manifest: Manifest | None, key: str) -> str | None:
    """The text under a key of a Secret; None when it is missing, empty, or no text."""
    data = (manifest or {}).get("data") or {}
    try:
        return base64.b64decode(data.get(key) or "", validate=True).decode() or None
    except (binascii.Error, UnicodeDecodeError):
        return None


def referred(cluster: Cluster, ref: SecretKeyRef, namespace: str) -> str | None:
    """The text that a reference points to, or None."""
    return value(secret(cluster, ref.name, namespace), ref.key)
