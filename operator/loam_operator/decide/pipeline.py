"""Whether a RagPipeline can be served, and how far it has come."""

from loam_operator.api.v1alpha1 import ModelRoute, RagPipeline
from loam_operator.decide.facts import Fact, fails, holds, unknown
from loam_operator.decide.running import POOL_SERVES, answering, is_available, is_pool_starting, is_suspended
from loam_operator.keys import is_owned
from loam_operator.names import RETRIEVAL, RETRIEVAL_POOL
from loam_operator.seen import SeenPipeline
from loam_shared.contracts.admin import PipelineState

_ACCEPTED = "Accepted"


def obstacle(seen: SeenPipeline) -> Fact | None:
    """The first reason for which the manifest cannot be served as it is, if any."""
    checks = (_tenant, _mode, _embedding, _generation, _rerank, _sources, _key_secret)
    return next((fact for check in checks if (fact := check(seen)) is not None), None)


def _tenant(seen: SeenPipeline) -> Fact | None:
    namespace = seen.pipeline.metadata.namespace
    if seen.tenant is None or seen.tenant.metadata.deletion_timestamp:
        return fails(_ACCEPTED, "NoTenant", f'namespace "{namespace}" is of no tenant')
    if seen.storage_secret is None:
        return fails(_ACCEPTED, "TenantNotReady", f'tenant "{seen.tenant.metadata.name}" has no storage yet')
    return None


def _mode(seen: SeenPipeline) -> Fact | None:
    """The pool has no identity of its own, so it needs a login of the tenant's that can be passed on."""
    secret = seen.storage_secret or {}
    if seen.pipeline.spec.serving.mode == "Shared" and "AWS_ACCESS_KEY_ID" not in (secret.get("data") or {}):
        message = "spec.serving.mode: Shared needs storage logins (the gateway's LOAM_STORAGE_IDENTITIES=Iam)"
        return fails(
            _ACCEPTED, "NoStorageLogin", f"{message}; here pods bring identities of their own, so use Dedicated"
        )
    return None


def _embedding(seen: SeenPipeline) -> Fact | None:
    wanted = seen.pipeline.spec.embedding
    missing = _model(seen, "spec.embedding.model", wanted.model, seen.embedding)
    if missing or seen.embedding is None:
        return missing
    spec = seen.embedding.spec
    if "Embed" not in spec.capabilities:
        return fails(_ACCEPTED, "ModelCannotEmbed", f'ModelRoute "{wanted.model}" lacks the capability Embed')
    if spec.dimensions != wanted.dimensions:
        message = f'ModelRoute "{wanted.model}" gives {spec.dimensions} dimensions, not {wanted.dimensions}'
        return fails(_ACCEPTED, "DimensionsMismatch", f"spec.embedding.dimensions: {message}")
    return None


def _generation(seen: SeenPipeline) -> Fact | None:
    wanted = seen.pipeline.spec.generation.model
    missing = _model(seen, "spec.generation.model", wanted, seen.generation)
    if missing or seen.generation is None:
        return missing
    if "Chat" not in seen.generation.spec.capabilities:
        return fails(_ACCEPTED, "ModelCannotChat", f'ModelRoute "{wanted}" lacks the capability Chat')
    return None


def _rerank(seen: SeenPipeline) -> Fact | None:
    wanted = seen.pipeline.spec.retrieval.rerank
    if not wanted.enabled or wanted.model is None:
        return None
    missing = _model(seen, "spec.retrieval.rerank.model", wanted.model, seen.reranker)
    if missing or wanted.model in seen.rerankers:
        return missing
    return fails(_ACCEPTED, "ModelCannotRerank", f'ModelRoute "{wanted.model}" lacks the capability Rerank')


def _model(seen: SeenPipeline, field: str, name: str, route: ModelRoute | None) -> Fact | None:
    if route is None:
        return fails(_ACCEPTED, "ModelMissing", f'{field}: there is no ModelRoute "{name}"')
    if seen.tenant is not None and name not in seen.tenant.spec.models:
        message = f'{field}: "{name}" is not among the models of tenant "{seen.tenant.metadata.name}"'
        return fails(_ACCEPTED, "ModelNotAllowed", message)
    return None


def _sources(seen: SeenPipeline) -> Fact | None:
    missing = [name for name, manifest in seen.config_maps.items() if manifest is None]
    if missing:
        return fails(_ACCEPTED, "ConfigMapMissing", f'spec.sources: there is no ConfigMap "{missing[0]}"')
    buckets = seen.tenant.spec.storage.source_buckets if seen.tenant else []
    for source in seen.pipeline.spec.sources:
        if source.s3 and source.s3.bucket not in buckets:
            message = f'spec.sources: the Tenant does not list bucket "{source.s3.bucket}" in storage.sourceBuckets'
            return fails(_ACCEPTED, "BucketNotAllowed", message)
    return None


def _key_secret(seen: SeenPipeline) -> Fact | None:
    if seen.key_secret is not None and not is_owned(seen.key_secret, seen.pipeline.metadata.uid):
        name = seen.key_secret["metadata"]["name"]
        return fails(_ACCEPTED, "SecretNotOwned", f'Secret "{name}" was not made for this pipeline and is left alone')
    return None


def serving(seen: SeenPipeline, accepted: Fact) -> Fact:
    """Whether questions are answered. An ingestion worker comes and goes with its work, and is none of it."""
    if accepted.status != "True":
        return fails("Serving", "NotAccepted", "the manifest is not accepted")
    if is_suspended(seen):
        return fails("Serving", "Suspended", "the tenant is suspended")
    name, who = f"{seen.pipeline.metadata.name}-{RETRIEVAL}", answering(seen)
    if who.pool and is_pool_starting(seen):
        message = f'Deployment "{RETRIEVAL_POOL}" of the platform has no pod that is ready yet'
        return fails("Serving", "PoolStarting", message)
    if who.pool:
        meanwhile = f'until Deployment "{name}" has a pod that is ready' if who.own_pods else ""
        return holds("Serving", POOL_SERVES, meanwhile)
    if not is_available(seen.retrieval):
        return fails("Serving", "PodsStarting", f'Deployment "{name}" has no pod that is ready yet')
    return holds("Serving", "PodsReady")


def left_out(seen: SeenPipeline) -> str:
    """What the manifest asks for and does not get, in a sentence; nothing where there is no such thing."""
    if not seen.pipeline.spec.retrieval.rerank.enabled or seen.reranking:
        return ""
    if seen.rerankers:
        wanted = f"name one of the tenant's rerankers, {', '.join(seen.rerankers)}"
    else:
        wanted = "it needs a ModelRoute with the capability Rerank among the tenant's models"
    return f"spec.retrieval.rerank.model: {wanted}; until then searches go on without"


def indexed(seen: SeenPipeline, state: PipelineState | None) -> Fact:
    """Whether every document is in the index."""
    if state is None:
        return unknown("Indexed", "NotRead", "the gateway has not said yet what is indexed")
    if state.pending:
        waiting = f"{state.pending} of {state.documents} documents wait to be indexed"
        if is_available(seen.ingestion):
            return fails("Indexed", "Indexing", waiting)
        return fails("Indexed", "WorkerStarting", f"{waiting}, and the ingestion worker has no pod that is ready yet")
    if state.failed:
        message = f"{state.failed} of {state.documents} documents could not be indexed; the list of documents says why"
        return fails("Indexed", "DocumentsFailed", message)
    return _newest_version(state) or holds("Indexed", "Indexed")


def _newest_version(state: PipelineState) -> Fact | None:
    """What keeps the newest version of the index out of service, if anything does."""
    if state.rejected:
        return fails("Indexed", "VersionRejected", f"the new version of the index is not in service: {state.rejected}")
    if building := state.building:
        message = f"version {building.index_version} is being built: {building.done} of {building.documents} documents"
        return fails("Indexed", "Rebuilding", message)
    return None


def synced(pipeline: RagPipeline, state: PipelineState | None) -> Fact:
    """Whether the sources were looked at without an error."""
    if all(source.uploads is not None for source in pipeline.spec.sources):
        return holds("Synced", "NoSources", "documents arrive over the API only")
    if state is not None and state.sync_error:
        return fails("Synced", "SyncFailed", state.sync_error)
    if state is None or state.last_sync_time is None:
        return fails("Synced", "NotYet", "the sources were not looked at yet")
    return holds("Synced", "Synced")
