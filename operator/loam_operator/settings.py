"""Settings of the operator, read once at the start from ``LOAM_*`` variables and passed on as arguments."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Platform(BaseModel):
    """What rendering must know of the platform: names, addresses and images. Pure data."""

    model_config = ConfigDict(frozen=True)

    namespace: str = "loam-system"
    """Where the platform itself runs; ModelRoutes' Secrets lie here."""
    tenant_namespace_prefix: str = ""
    """Put before a tenant's name to make its namespace's."""
    operator_service_account: str = "loam-operator"
    image_retrieval: str = "loam-retrieval:0.1.0"
    image_ingestion: str = "loam-ingestion:0.1.0"
    image_pull_policy: str = "IfNotPresent"
    gateway_internal_url: str = "http://loam-gateway.loam-system.svc:8081"
    """Base URL of the gateway's internal listener, as pods reach it."""
    gateway_public_url: str = "http://loam-gateway.loam-system.svc:8080"
    """Base URL that tenants are told in their status."""
    gateway_internal_port: int = 8081
    retrieval_pool_url: str = "http://loam-retrieval-pool.loam-system.svc:8080"
    """Where the platform's retrieval pool answers, which serves pipelines of the mode Shared; the gateway's
    LOAM_RETRIEVAL_POOL_URL is the same."""
    storage_cidrs: tuple[str, ...] = ()
    """Where pods may reach the object storage (a VPC endpoint, say); no way is opened when empty."""
    storage_port: int = 443
    dns_namespace: str = "kube-system"

    def namespace_of(self, tenant: str) -> str:
        """The namespace that a tenant of this name owns."""
        return self.tenant_namespace_prefix + tenant

    def is_reserved(self, namespace: str) -> bool:
        """Whether a namespace is Kubernetes' own or the platform's, and so never a tenant's."""
        return namespace in {"default", self.namespace} or namespace.startswith("kube-")


class Settings(BaseSettings):
    """Everything that the operator reads from its environment."""

    model_config = SettingsConfigDict(env_prefix="LOAM_", env_nested_delimiter="__", frozen=True)

    platform: Platform = Platform()
    admin_url: str = "http://127.0.0.1:8082"
    """Base URL of the gateway's admin listener."""
    admin_token_file: Path = Path("/var/run/secrets/loam/admin-token")
    """Bearer token of the admin API; read anew for every call, so it may be rotated."""
    workers: int = Field(default=16, ge=1)
    """How many objects are reconciled at once."""
    resync_seconds: float = Field(default=600, gt=0)
    """After this long every object is reconciled and pushed to the gateway again, come what may."""
    states_seconds: float = Field(default=10, gt=0)
    """How often spend and indexing are asked of the gateway, for status."""
    ingestion_idle_seconds: float = Field(default=300, gt=0)
    """After so long without anything to ingest a pipeline's worker is stopped, until there is something again."""
    kubeconfig: Path | None = None
    """Which kubeconfig to use outside of a cluster; the current one without it."""
    health_port: int | None = None
    """Port of the liveness endpoint; none without it."""
    log_level: str = "info"
