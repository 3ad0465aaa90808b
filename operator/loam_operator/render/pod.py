"""How every pod in a tenant's namespace is secured, and the Deployment around it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loam_operator.cluster import Manifest
from loam_operator.labels import INPUTS
from loam_operator.names import SERVICE_PORT

_USER = 10001
_TMP = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - the one place where a read-only container may write


@dataclass(frozen=True)
class Container:
    """What tells one workload from another. Times and limits are the same for all."""

    name: str
    image: str
    module: str
    env: Mapping[str, str]
    resources: Mapping[str, Mapping[str, str]]
    env_from_secrets: tuple[str, ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = field(default=())


def deployment_spec(
    container: Container,
    *,
    labels: Mapping[str, str],
    service_account: str,
    inputs: str,
    pull_policy: str,
    replicas: int | None,
) -> dict[str, Any]:
    """A Deployment's spec. `replicas` is None where an autoscaler decides."""
    selector = {name: labels[name] for name in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": selector},
        "revisionHistoryLimit": 3,
        "template": {
            "metadata": {"labels": dict(labels), "annotations": {INPUTS: inputs}},
            "spec": _pod(container, service_account, pull_policy),
        },
    }
    return spec if replicas is None else spec | {"replicas": replicas}


def fingerprint(manifests: Iterable[Manifest | None]) -> str:
    """A hash of what Secrets and ConfigMaps hold; pods roll when it changes."""
    held = [
        [manifest["metadata"]["name"], manifest.get("data"), manifest.get("binaryData")]
        for manifest in manifests
        if manifest is not None
    ]
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]


def _pod(container: Container, service_account: str, pull_policy: str) -> dict[str, Any]:
    return {
        "serviceAccountName": service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(container, pull_policy)],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *container.volumes],
    }


def _container(container: Container, pull_policy: str) -> dict[str, Any]:
    probe = {"path": "/healthz", "port": "http"}
    whole: dict[str, Any] = {
        "name": container.name,
        "image": container.image,
        "imagePullPolicy": pull_policy,
        "command": ["python", "-m", container.module],
        "env": [{"name": name, "value": value} for name, value in container.env.items()],
        "ports": [{"name": "http", "containerPort": SERVICE_PORT, "protocol": "TCP"}],
        "resources": {kind: dict(amounts) for kind, amounts in container.resources.items()},
        "readinessProbe": {"httpGet": probe, "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {"httpGet": probe, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "startupProbe": {"httpGet": probe, "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 60},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [_TMP, *container.mounts],
    }
    if container.env_from_secrets:
        whole["envFrom"] = [{"secretRef": {"name": name}} for name in container.env_from_secrets]
    return whole
