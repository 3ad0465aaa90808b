"""The platform's retrieval pool on this machine: one more process, for as long as a pipeline is of the mode Shared."""

import asyncio

import structlog

from loam_cli.local.cluster import USER, LocalCluster
from loam_operator.api.v1alpha1 import API_VERSION
from loam_operator.cluster import Manifest, Ref
from loam_operator.decide.running import POOL_SERVES
from loam_operator.names import RETRIEVAL_POOL, SERVICE_PORT
from loam_operator.settings import Platform
from loam_shared.errors import LoamError

log = structlog.get_logger()

_AGAIN_SECONDS = 1.0


class Pool:
    """Keeps the pool's Deployment, which the kubelet runs like any other; it is always there, mostly scaled to zero."""

    def __init__(self, cluster: LocalCluster, platform: Platform) -> None:
        self._cluster = cluster
        self._platform = platform
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Scale it to one or zero as the pipelines ask, until cancelled."""
        self._cluster.subscribe(self._notice)
        while True:
            try:
                for manifest in manifests(self._platform, 1 if self._is_wanted() else 0):
                    await self._cluster.apply(manifest, manager=USER)
            except LoamError as error:
                log.warning("could not look after the pool", error=str(error), again_in=_AGAIN_SECONDS)
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._wake.set)
            await self._wake.wait()
            self._wake.clear()

    def _notice(self, manifest: Manifest) -> None:
        if manifest["kind"] == "RagPipeline":
            self._wake.set()

    def _is_wanted(self) -> bool:
        return any(map(_is_pooled, self._cluster.list(API_VERSION, "RagPipeline")))


def _is_pooled(pipeline: Manifest) -> bool:
    """Whether the pool serves it by its manifest, or does so until the pipeline's own pods are ready."""
    conditions = (pipeline.get("status") or {}).get("conditions", ())
    by_manifest = (pipeline["spec"].get("serving") or {}).get("mode") == "Shared"
    return by_manifest or any(condition["reason"] == POOL_SERVES for condition in conditions)


def is_pool(deployment: Ref, platform: Platform) -> bool:
    """Whether that is the pool's Deployment."""
    return (deployment.namespace, deployment.name) == (platform.namespace, RETRIEVAL_POOL)


def manifests(platform: Platform, replicas: int) -> list[Manifest]:
    """The platform's namespace, and the pool in it, as far as a process needs it."""
    labels = {"app.kubernetes.io/name": RETRIEVAL_POOL}
    container = {
        "name": RETRIEVAL_POOL,
        "image": platform.image_retrieval,
        "command": ["python", "-m", "loam_retrieval"],
        "env": [{"name": "LOAM_GATEWAY_URL", "value": platform.gateway_internal_url}],
        "ports": [{"name": "http", "containerPort": SERVICE_PORT}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": platform.namespace}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": RETRIEVAL_POOL, "namespace": platform.namespace},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }
    return [namespace, deployment]
