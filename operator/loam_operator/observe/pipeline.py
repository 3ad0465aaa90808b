"""Reads what a RagPipeline depends on."""

from loam_operator.api.v1alpha1 import RagPipeline, Tenant
from loam_operator.cluster import Cluster, Ref
from loam_operator.names import INGESTION, RETRIEVAL, RETRIEVAL_POOL, STORAGE_SECRET, key_secret
from loam_operator.observe.world import config_map, read, route, secret, tenant_of
from loam_operator.seen import SeenPipeline
from loam_operator.settings import Platform


def observe(cluster: Cluster, ref: Ref, platform: Platform) -> SeenPipeline | None:
    """Everything about one RagPipeline; None when it is gone."""
    pipeline = read(cluster, RagPipeline, ref.name, ref.namespace)
    if pipeline is None:
        return None
    tenant = tenant_of(cluster, ref.namespace, platform)
    rerank = pipeline.spec.retrieval.rerank
    names = [source.config_map.name for source in pipeline.spec.sources if source.config_map]
    return SeenPipeline(
        pipeline=pipeline,
        tenant=tenant,
        embedding=route(cluster, pipeline.spec.embedding.model),
        generation=route(cluster, pipeline.spec.generation.model),
        reranker=route(cluster, rerank.model) if rerank.model else None,
        rerankers=_rerankers(cluster, tenant),
        config_maps={name: config_map(cluster, name, ref.namespace) for name in names},
        key_secret=secret(cluster, key_secret(ref.name), ref.namespace),
        storage_secret=secret(cluster, STORAGE_SECRET, ref.namespace),
        retrieval=cluster.get(Ref("apps/v1", "Deployment", f"{ref.name}-{RETRIEVAL}", ref.namespace)),
        ingestion=cluster.get(Ref("apps/v1", "Deployment", f"{ref.name}-{INGESTION}", ref.namespace)),
        pool=cluster.get(Ref("apps/v1", "Deployment", RETRIEVAL_POOL, platform.namespace)),
    )


def _rerankers(cluster: Cluster, tenant: Tenant | None) -> tuple[str, ...]:
    names = sorted(tenant.spec.models) if tenant else ()
    found = ((name, route(cluster, name)) for name in names)
    return tuple(name for name, model in found if model is not None and "Rerank" in model.spec.capabilities)
