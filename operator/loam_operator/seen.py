"""What observing brings home: everything that deciding and rendering an object may look at, read in one go."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from loam_operator.api.v1alpha1 import ApiKey, ModelRoute, RagPipeline, Tenant
from loam_operator.cluster import Manifest


@dataclass(frozen=True)
class SeenModelRoute:
    """A ModelRoute, all routes by name, and the platform's key for its provider."""

    route: ModelRoute
    routes: Mapping[str, ModelRoute]
    credential: str | None


@dataclass(frozen=True)
class SeenTenant:
    """A Tenant, its namespace, the names of all tenants by uid, what of its models is missing, and its own keys.

    `slack_webhook` is the URL that its alerts go to, if it names one and the Secret is there.
    `template_maps` are the ConfigMaps that are labelled as prompt templates.
    """

    tenant: Tenant
    namespace: str
    live_namespace: Manifest | None
    tenants: Mapping[str, str]
    missing_models: tuple[str, ...]
    credentials: Mapping[str, str]
    slack_webhook: str | None
    key_secrets: tuple[str, ...]
    template_maps: tuple[Manifest, ...]


@dataclass(frozen=True)
class SeenApiKey:
    """An ApiKey, whose it is, and its Secret."""

    key: ApiKey
    tenant: Tenant | None
    secret: Manifest | None
    now: datetime


@dataclass(frozen=True)
class SeenPipeline:
    """A RagPipeline, whose it is, the models it names, its sources in ConfigMaps, its Secrets and its Deployments.

    `pool` is the Deployment of the platform's retrieval pool, where the operator sees it.
    `reranker` is the ModelRoute that `rerank` names; `rerankers` are the names of all of the tenant's.
    """

    pipeline: RagPipeline
    tenant: Tenant | None
    embedding: ModelRoute | None
    generation: ModelRoute | None
    reranker: ModelRoute | None
    rerankers: tuple[str, ...]
    config_maps: Mapping[str, Manifest | None]
    key_secret: Manifest | None
    storage_secret: Manifest | None
    retrieval: Manifest | None
    ingestion: Manifest | None
    pool: Manifest | None = None

    @property
    def reranking(self) -> str | None:
        """The ModelRoute that puts candidates in order: the one that is named, or the only one that the tenant has."""
        wanted = self.pipeline.spec.retrieval.rerank
        if not wanted.enabled:
            return None
        return wanted.model or (self.rerankers[0] if len(self.rerankers) == 1 else None)
