"""What the operator would make of manifests, without a cluster, a gateway or a running platform."""

from collections.abc import Iterator, Sequence

from loam_cli.local.cluster import USER, LocalCluster
from loam_cli.local.platform import check
from loam_cli.local.store import Store
from loam_operator.api.v1alpha1 import API_VERSION
from loam_operator.cluster import Manifest, Ref
from loam_operator.decide import tenant as decide
from loam_operator.observe import pipeline as observe_pipeline
from loam_operator.observe import tenant as observe_tenant
from loam_operator.render import pipeline as render_pipeline
from loam_operator.render import tenant as render_tenant
from loam_operator.settings import Platform


async def rendered(manifests: Sequence[Manifest]) -> list[Manifest]:
    """The objects of every Tenant and RagPipeline. Raises CommandError when a manifest is bad."""
    cluster = LocalCluster(Store(), lambda service, port: f"http://{service.name}.{service.namespace}.svc:{port}")
    check(manifests, cluster)
    for manifest in manifests:
        await cluster.apply(manifest, manager=USER)
    return [*_of_tenants(cluster, Platform()), *_of_pipelines(cluster, Platform())]


def _of_tenants(cluster: LocalCluster, platform: Platform) -> Iterator[Manifest]:
    for held in cluster.list(API_VERSION, "Tenant"):
        seen = observe_tenant.observe(cluster, held["metadata"]["name"], platform)
        assert seen is not None
        yield from render_tenant.render(seen, decide.origin(seen), platform)


def _of_pipelines(cluster: LocalCluster, platform: Platform) -> Iterator[Manifest]:
    for held in cluster.list(API_VERSION, "RagPipeline"):
        seen = observe_pipeline.observe(cluster, Ref.of(held), platform)
        if seen is not None and seen.tenant is not None:
            own_pods = seen.pipeline.spec.serving.mode == "Dedicated"
            yield from render_pipeline.render(seen, seen.tenant.metadata.name, platform, own_pods=own_pods)
