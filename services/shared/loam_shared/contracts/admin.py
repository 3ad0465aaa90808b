r"""The gateway's admin API, as the operator calls it. Every PUT is idempotent and carries the whole desired state.

| call | answer |
|---|---|
| ``PUT /admin/v1/models/{name}`` ModelPut, ``DELETE …`` | 204 |
| ``PUT /admin/v1/tenants/{tenant}`` TenantPut, ``GET …`` | TenantState |
| ``DELETE /admin/v1/tenants/{tenant}?uid=…&policy=Retain\|Delete`` | Purge |
| ``PUT /admin/v1/tenants/{tenant}/keys/{keyId}`` KeyPut, ``DELETE …`` | 204 |
| ``PUT /admin/v1/tenants/{tenant}/pipelines/{name}`` PipelinePut, ``GET …`` | PipelineState |
| ``DELETE /admin/v1/tenants/{tenant}/pipelines/{name}?uid=…`` | Purge |
| ``GET /admin/v1/states`` | States: spend and indexing of everything, for status |

Money is a decimal string in USD, as in the manifests. A PUT of an object whose `uid` differs from the stored one is
409 `conflict`, unless `adopt` is set: data never falls to a stranger that happens to have the same name.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from loam_shared.contracts import Wire

EmailAddress = Annotated[
    str,
    Field(
        max_length=254,
        pattern=r"^[-A-Za-z0-9!#$%&'*+/=?^_`{|}~]+(\.[-A-Za-z0-9!#$%&'*+/=?^_`{|}~]+)*"
        r"@[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*$",
    ),
]
"""Plain ASCII and one address only: nothing in it can end a header or begin another recipient."""


class PriceTier(Wire):
    """Prices that hold once the input is longer than `above_input_tokens`."""

    above_input_tokens: int
    input_per_million: str
    output_per_million: str | None = None
    cache_read_per_million: str | None = None
    cache_write_per_million: str | None = None


class Price(Wire):
    """USD per million tokens (per thousand queries for rerankers)."""

    input_per_million: str | None = None
    output_per_million: str | None = None
    cache_read_per_million: str | None = None
    cache_write_per_million: str | None = None
    per_thousand_queries: str | None = None
    tiers: tuple[PriceTier, ...] = ()


class ModelPut(Wire):
    """A ModelRoute: what callers may name as model, and what it costs."""

    uid: str
    provider: Literal["Bedrock", "OpenAI", "Anthropic"]
    model_id: str
    regions: tuple[str, ...] = ()
    capabilities: tuple[Literal["Chat", "Stream", "Tools", "Embed", "Rerank"], ...]
    dimensions: int | None = None
    base_url: str | None = None
    credential: str | None = Field(default=None, repr=False)
    price: Price | None = None
    max_output_tokens: int | None = None
    fallbacks: tuple[str, ...] = ()


class AlertTargets(Wire):
    """Whom to tell when spend passes a percentage. The webhook's URL is a secret: stored encrypted, never returned."""

    slack_webhook: str | None = Field(default=None, repr=False)
    emails: tuple[EmailAddress, ...] = Field(default=(), max_length=16)


class Budget(Wire):
    """Hard caps in USD; what is absent is not capped."""

    monthly_usd: str | None = None
    daily_usd: str | None = None
    per_user_monthly_usd: str | None = None
    per_user_daily_usd: str | None = None
    alert_percents: tuple[int, ...] = (50, 80, 100)
    alerts: AlertTargets = AlertTargets()


class RateLimit(Wire):
    """What is absent is not limited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


class ProviderCredential(Wire):
    """A tenant's own provider key (BYOK), stored encrypted and never returned."""

    provider: Literal["Bedrock", "OpenAI", "Anthropic"]
    secret: str = Field(repr=False)


class NetworkService(Wire):
    """An address inside that the tenant may have called on its behalf, besides all of the public internet."""

    host: str
    ports: tuple[int, ...]


class TenantPut(Wire):
    """A Tenant, as far as the gateway needs it."""

    uid: str
    adopt: bool = False
    display_name: str = ""
    models: tuple[str, ...] = ()
    budget: Budget = Budget()
    rate_limit: RateLimit = RateLimit()
    provider_credentials: tuple[ProviderCredential, ...] = ()
    source_buckets: tuple[str, ...] = ()
    services: tuple[NetworkService, ...] = ()
    markup_percent: str = "0"
    suspended: bool = False


class StorageGrant(Wire):
    """Where a tenant's pods keep documents and indexes, and as whom.

    Without keys the pods' own identity counts (EKS Pod Identity, IRSA). `endpoint` is None for AWS itself.
    """

    bucket: str
    prefix: str
    region: str
    endpoint: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = Field(default=None, repr=False)


class Spend(Wire):
    """Posted spend of the current windows (UTC), in USD."""

    month_usd: str
    day_usd: str
    as_of: datetime
    within_budget: bool


class AlertState(Wire):
    """Whether messages about a tenant's budgets arrive; if not, the reason in CamelCase and a sentence."""

    ready: bool = True
    reason: str = "Ready"
    message: str = ""


class TenantState(Wire):
    """What the operator needs to know of a tenant after a PUT. `unknown_models` are allowed but not registered."""

    storage: StorageGrant
    spend: Spend
    alerts: AlertState = AlertState()
    unknown_models: tuple[str, ...] = ()


class KeyHash(Wire):
    """One secret of a key; an overlapping older one carries `expires_at`."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    expires_at: datetime | None = None


class KeyPut(Wire):
    """An API key. 409 when a hash is another tenant's or another key's.

    `workload` marks the key of a pipeline's own pods, which opens the internal listener for that pipeline only.
    """

    name: str
    hashes: tuple[KeyHash, ...] = Field(min_length=1, max_length=8)
    scopes: tuple[str, ...] = ()
    monthly_usd: str | None = None
    daily_usd: str | None = None
    user: str | None = None
    expires_at: datetime | None = None
    workload: str | None = None


class PipelinePut(Wire):
    """A RagPipeline: `spec` as in its manifest, and where its retrieval service answers."""

    uid: str
    spec: dict[str, Any]
    endpoint: str


class Building(Wire):
    """An index version that is being built beside the one that serves: `done` of its `documents` are in it."""

    index_version: int
    done: int
    documents: int


class PipelineState(Wire):
    """What the status of a RagPipeline says about its documents.

    `rejected` tells why the newest version was not put into service. `queued` jobs are due, or a worker is
    at them.
    """

    documents: int = 0
    pending: int = 0
    failed: int = 0
    chunks: int = 0
    index_version: int = 0
    last_sync_time: datetime | None = None
    sync_error: str | None = None
    building: Building | None = None
    rejected: str | None = None
    queued: int = 0


class Purge(Wire):
    """Whether everything is gone; False asks for the same DELETE again a little later."""

    done: bool


class States(Wire):
    """Tenant name to spend and to how its alerts fare, and ``tenant/pipeline`` to its state."""

    tenants: dict[str, Spend]
    pipelines: dict[str, PipelineState]
    alerts: dict[str, AlertState] = Field(default_factory=dict)
