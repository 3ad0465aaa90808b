"""A RagPipeline as objects of its namespace, and as the gateway is told of it. Pure: seen in, manifests out."""

import json
from typing import Any

from loam_operator.api.v1alpha1 import RagPipeline
from loam_operator.cluster import Manifest, Ref
from loam_operator.keys import StoredKey
from loam_operator.names import INGESTION, RETRIEVAL, SERVICE_PORT, STORAGE_SECRET, configuration, key_secret
from loam_operator.render.metadata import labels, manifest, metadata
from loam_operator.render.network import in_namespace, tcp
from loam_operator.render.pod import Container, deployment_spec, fingerprint
from loam_operator.seen import SeenPipeline
from loam_operator.settings import Platform
from loam_shared.contracts.admin import KeyPut, PipelinePut

_CONFIG, _KEY, _SOURCES = "/etc/loam/pipeline", "/etc/loam/key", "/etc/loam/sources"
_CONFIG_FILE = "pipeline.json"
_INGESTION_RESOURCES = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1536Mi"}}


def render(
    seen: SeenPipeline, tenant: str, platform: Platform, *, own_pods: bool = True, workers: int = 1
) -> list[Manifest]:
    """Everything of the pipeline's but the Secret with its key, in the order in which it is applied.

    Without `own_pods` the platform's pool answers, and there is nothing that would; `workers` ingest.
    """
    return [
        configuration_map(seen, tenant),
        _account(seen, tenant, INGESTION),
        _ingestion(seen, tenant, platform, workers),
        *(_answering(seen, tenant, platform) if own_pods else ()),
    ]


def _answering(seen: SeenPipeline, tenant: str, platform: Platform) -> list[Manifest]:
    return [
        _account(seen, tenant, RETRIEVAL),
        *_network(seen, tenant, platform),
        _retrieval(seen, tenant, platform),
        _service(seen, tenant),
        _autoscaler(seen, tenant),
        _manifest(
            seen,
            tenant,
            "policy/v1",
            "PodDisruptionBudget",
            RETRIEVAL,
            spec={"maxUnavailable": 1, "selector": {"matchLabels": _selector(seen, RETRIEVAL)}},
        ),
    ]


def service_ref(pipeline: RagPipeline) -> Ref:
    """The Service behind which retrieval answers."""
    return Ref("v1", "Service", f"{pipeline.metadata.name}-{RETRIEVAL}", pipeline.metadata.namespace)


def configuration_map(seen: SeenPipeline, tenant: str) -> Manifest:
    """What of the pipeline's spec the pods read that answer: the rest is told them, or not theirs to know."""
    name = configuration(seen.pipeline.metadata.name)
    meta = metadata(seen.pipeline, tenant, name, namespace=seen.pipeline.metadata.namespace)
    served = {name: part for name, part in _spec(seen).items() if name in {"retrieval", "generation"}}
    return manifest("v1", "ConfigMap", meta, data={_CONFIG_FILE: json.dumps(served, indent=2, sort_keys=True)})


def put(seen: SeenPipeline, endpoint: str) -> PipelinePut:
    """The pipeline as the gateway is told of it."""
    return PipelinePut(uid=seen.pipeline.metadata.uid, spec=_spec(seen), endpoint=endpoint)


def _spec(seen: SeenPipeline) -> dict[str, Any]:
    """The spec in which the reranker is named, also where the manifest leaves that to the tenant's models."""
    spec = seen.pipeline.spec
    rerank = spec.retrieval.rerank.model_copy(update={"model": seen.reranking})
    retrieval = spec.retrieval.model_copy(update={"rerank": rerank})
    return spec.model_copy(update={"retrieval": retrieval}).to_manifest()


def key_put(pipeline: RagPipeline, key: StoredKey) -> KeyPut:
    """The key of the pipeline's own pods: it opens the internal listener, for this pipeline only."""
    name = pipeline.metadata.name
    return KeyPut(name=f"pipeline-{name}", hashes=key.hashes(key.created), workload=name)


def _retrieval(seen: SeenPipeline, tenant: str, platform: Platform) -> Manifest:
    resources = seen.pipeline.spec.serving.resources
    requests = dict(resources.requests)
    limits = dict(resources.limits) or {name: value for name, value in requests.items() if name == "memory"}
    container = Container(
        name=RETRIEVAL,
        image=platform.image_retrieval,
        module="loam_retrieval",
        env=_environment(seen, tenant, platform) | {"LOAM_CONFIG_FILE": f"{_CONFIG}/{_CONFIG_FILE}"},
        resources={kind: amounts for kind, amounts in (("requests", requests), ("limits", limits)) if amounts},
        env_from_secrets=(STORAGE_SECRET,),
        volumes=(_config_volume(seen),),
        mounts=(_mount("config", _CONFIG),),
    )
    inputs = fingerprint([seen.storage_secret, configuration_map(seen, tenant)])
    # The autoscaler decides how many, unless the tenant is suspended: at zero it leaves a Deployment alone.
    return _deployment(seen, tenant, platform, container, inputs, 0 if _is_suspended(seen) else None)


def _account(seen: SeenPipeline, tenant: str, part: str) -> Manifest:
    return _manifest(seen, tenant, "v1", "ServiceAccount", part, automountServiceAccountToken=False)


def _ingestion(seen: SeenPipeline, tenant: str, platform: Platform, workers: int) -> Manifest:
    sources = [manifest for manifest in seen.config_maps.values() if manifest is not None]
    volumes = [_secret_volume(seen)]
    mounts = [_mount("key", _KEY)]
    env = _environment(seen, tenant, platform) | {"LOAM_GATEWAY_KEY_FILE": f"{_KEY}/key"}
    if sources:
        volumes.append({"name": "sources", "projected": {"defaultMode": 0o440, "sources": _projected(sources)}})
        mounts.append(_mount("sources", _SOURCES))
        env["LOAM_SOURCES_DIR"] = _SOURCES
    container = Container(
        name=INGESTION,
        image=platform.image_ingestion,
        module="loam_ingestion",
        env=env,
        resources=_INGESTION_RESOURCES,
        env_from_secrets=(STORAGE_SECRET,),
        volumes=tuple(volumes),
        mounts=tuple(mounts),
    )
    inputs = fingerprint([seen.storage_secret, seen.key_secret, *sources])
    return _deployment(seen, tenant, platform, container, inputs, workers)


def _projected(config_maps: list[Manifest]) -> list[dict[str, Any]]:
    """A folder for each ConfigMap, with a file for each of its keys."""
    folders = []
    for held in config_maps:
        name = held["metadata"]["name"]
        keys = sorted({**(held.get("data") or {}), **(held.get("binaryData") or {})})
        if keys:
            items = [{"key": key, "path": f"{name}/{key}"} for key in keys]
            folders.append({"configMap": {"name": name, "items": items}})
    return folders


def _environment(seen: SeenPipeline, tenant: str, platform: Platform) -> dict[str, str]:
    return {
        "LOAM_TENANT": tenant,
        "LOAM_PIPELINE": seen.pipeline.metadata.name,
        "LOAM_GATEWAY_URL": platform.gateway_internal_url,
        "LOAM_HOST": "0.0.0.0",  # noqa: S104 - within the pod; NetworkPolicies say who reaches it
        "LOAM_PORT": str(SERVICE_PORT),
    }


def _config_volume(seen: SeenPipeline) -> dict[str, Any]:
    name = configuration(seen.pipeline.metadata.name)
    return {"name": "config", "configMap": {"name": name, "defaultMode": 0o440}}


def _secret_volume(seen: SeenPipeline) -> dict[str, Any]:
    return {"name": "key", "secret": {"secretName": key_secret(seen.pipeline.metadata.name), "defaultMode": 0o440}}


def _mount(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "mountPath": path, "readOnly": True}


def _is_suspended(seen: SeenPipeline) -> bool:
    return seen.tenant is not None and seen.tenant.spec.suspended


def _deployment(
    seen: SeenPipeline, tenant: str, platform: Platform, container: Container, inputs: str, replicas: int | None
) -> Manifest:
    spec = deployment_spec(
        container,
        labels=labels(seen.pipeline, tenant, container.name),
        service_account=f"{seen.pipeline.metadata.name}-{container.name}",
        inputs=inputs,
        pull_policy=platform.image_pull_policy,
        replicas=replicas,
    )
    if container.name == INGESTION:
        # An index has one writer. A second one would only wait for the lease.
        spec["strategy"] = {"type": "Recreate"}
    return _manifest(seen, tenant, "apps/v1", "Deployment", container.name, spec=spec)


def _service(seen: SeenPipeline, tenant: str) -> Manifest:
    ports = [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}]
    spec = {"selector": _selector(seen, RETRIEVAL), "ports": ports}
    return _manifest(seen, tenant, "v1", "Service", RETRIEVAL, spec=spec)


def _autoscaler(seen: SeenPipeline, tenant: str) -> Manifest:
    serving = seen.pipeline.spec.serving
    in_flight = {
        "type": "Pods",
        "pods": {
            "metric": {"name": "loam_requests_in_flight"},
            "target": {"type": "AverageValue", "averageValue": str(serving.target_concurrency)},
        },
    }
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{seen.pipeline.metadata.name}-{RETRIEVAL}"}
    spec = {
        "scaleTargetRef": target,
        "minReplicas": serving.min_replicas,
        "maxReplicas": serving.max_replicas,
        "metrics": [cpu, in_flight],
    }
    return _manifest(seen, tenant, "autoscaling/v2", "HorizontalPodAutoscaler", RETRIEVAL, spec=spec)


def _network(seen: SeenPipeline, tenant: str, platform: Platform) -> list[Manifest]:
    """Only the gateway may ask, and nobody reaches the ingestion worker; both go out on the tenant's ways."""
    gateway = in_namespace(platform.namespace, {"app.kubernetes.io/component": "gateway"})
    asked = {
        "podSelector": {"matchLabels": _selector(seen, RETRIEVAL)},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [gateway], "ports": tcp(SERVICE_PORT)}],
    }
    return [_manifest(seen, tenant, "networking.k8s.io/v1", "NetworkPolicy", RETRIEVAL, spec=asked)]


def _selector(seen: SeenPipeline, component: str) -> dict[str, str]:
    instance = seen.pipeline.metadata.name
    return {"app.kubernetes.io/name": f"loam-{component}", "app.kubernetes.io/instance": instance}


def _manifest(seen: SeenPipeline, tenant: str, api_version: str, kind: str, component: str, **body: Any) -> Manifest:
    name = f"{seen.pipeline.metadata.name}-{component}"
    namespace = seen.pipeline.metadata.namespace
    meta = metadata(seen.pipeline, tenant, name, namespace=namespace, component=component)
    return manifest(api_version, kind, meta, **body)
