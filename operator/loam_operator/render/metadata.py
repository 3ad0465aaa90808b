"""Metadata that everything rendered carries: whose it is, and which object of ours it was rendered from."""

import base64
from collections.abc import Mapping
from typing import Any

from loam_operator.api.v1alpha1 import Resource
from loam_operator.cluster import Manifest
from loam_operator.labels import MANAGED_BY, OWNER_KIND, OWNER_NAME, OWNER_UID, TENANT


def labels(owner: Resource, tenant: str, component: str | None = None) -> dict[str, str]:
    """The labels of an object that is rendered from `owner`."""
    common = {
        MANAGED_BY: "loam",
        "app.kubernetes.io/part-of": "loam",
        "app.kubernetes.io/instance": owner.metadata.name,
        TENANT: tenant,
        OWNER_KIND: owner.kind,
        OWNER_NAME: owner.metadata.name,
    }
    if component:
        common |= {"app.kubernetes.io/name": f"loam-{component}", "app.kubernetes.io/component": component}
    return common


def metadata(
    owner: Resource,
    tenant: str,
    name: str,
    *,
    namespace: str | None,
    component: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Metadata of an object that is rendered from `owner`."""
    whole: dict[str, Any] = {
        "name": name,
        "labels": labels(owner, tenant, component),
        "annotations": {OWNER_UID: owner.metadata.uid, **(annotations or {})},
    }
    return whole | {"namespace": namespace} if namespace else whole


def opaque(data: Mapping[str, str]) -> dict[str, Any]:
    """The body of a Secret with these texts."""
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in sorted(data.items())}
    return {"type": "Opaque", "data": encoded}


def manifest(api_version: str, kind: str, meta: Mapping[str, Any], **body: Any) -> Manifest:
    """An object as it is applied."""
    return {"apiVersion": api_version, "kind": kind, "metadata": dict(meta), **body}
