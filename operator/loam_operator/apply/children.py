"""Writing what was rendered, and pruning what no longer is."""

from collections.abc import Iterable, Iterator, Sequence

from loam_operator.api.v1alpha1 import Resource
from loam_operator.cluster import Cluster, Manifest, Ref
from loam_operator.kinds import MADE, PER_NAMESPACE
from loam_operator.labels import OWNER_KIND, OWNER_NAME, OWNER_UID


async def apply_all(cluster: Cluster, manifests: Iterable[Manifest]) -> None:
    """Apply the manifests in their order."""
    for manifest in manifests:
        await cluster.apply(manifest)


async def prune(cluster: Cluster, owner: Resource, namespace: str | None, keep: Sequence[Manifest] = ()) -> None:
    """Delete what was rendered from `owner` once and is not among `keep`."""
    kept = {Ref.of(manifest) for manifest in keep}
    for child in list(children(cluster, owner, namespace)):
        if Ref.of(child) not in kept and not child["metadata"].get("deletionTimestamp"):
            await cluster.delete(Ref.of(child), child["metadata"]["uid"])


def children(cluster: Cluster, owner: Resource, namespace: str | None) -> Iterator[Manifest]:
    """What was rendered from `owner`: by label, and by the uid, so that nothing of a namesake counts."""
    if namespace is None:
        return
    labels = {OWNER_KIND: owner.kind, OWNER_NAME: owner.metadata.name}
    # Rights go last: without its RoleBinding the operator could delete no Secret any more.
    for kind in (*PER_NAMESPACE, *MADE):
        for child in cluster.list(kind.api_version, kind.kind, namespace=namespace, labels=labels):
            if child["metadata"].get("annotations", {}).get(OWNER_UID) == owner.metadata.uid:
                yield child
