"""What the directory knows, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from loam_gateway.metering.pricing import PriceList


@dataclass(frozen=True, slots=True)
class Principal:
    """On whose behalf a request acts. It comes from a credential, never from a payload.

    `workload` is the pipeline whose own pods hold the key; such a key opens the internal listener only. The caps
    and `expires_at` are the key's own, in nano-dollars and until when it works.
    `root_request_id` is the public request that an internal call belongs to.
    """

    tenant: str
    key_id: str
    user: str | None = None
    scopes: frozenset[str] = field(default=frozenset())
    workload: str | None = None
    monthly_cap: int | None = None
    daily_cap: int | None = None
    expires_at: datetime | None = None
    root_request_id: str | None = None
    pipeline: str | None = None
    agent: str | None = None
    run: str | None = None

    @property
    def at_the_door(self) -> bool:
        """Whether this is a caller's own request, and not one that a service or pod makes within the platform."""
        return self.root_request_id is None and self.workload is None


@dataclass(frozen=True, slots=True)
class Limits:
    """A tenant's limits; None is not limited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None

    def __bool__(self) -> bool:
        return not (self.requests_per_minute is self.tokens_per_minute is self.concurrent_requests is None)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant, as far as a request needs it. `own_keys` are keys of its own with providers, by provider."""

    name: str
    uid: str
    models: frozenset[str]
    limits: Limits = Limits()
    markup_ppm: int = 0
    suspended: bool = False
    own_keys: Mapping[str, str] = field(default_factory=dict, repr=False)

    def own_key(self, model: "Model") -> str | None:
        """The tenant's own key with the model's provider, which wins over the platform's.

        A server that asks the platform for no key is the platform's own, and would take any: it stays paid for.
        """
        keyless = model.base_url is not None and model.credential is None
        return None if keyless else self.own_keys.get(model.provider)


@dataclass(frozen=True, slots=True)
class Model:
    """A model route: what callers may name as model. Without `prices` it cannot be called.

    `credential` is the platform's with a provider other than Bedrock, `base_url` where such a one answers.
    """

    name: str
    provider: str
    model_id: str
    regions: tuple[str, ...]
    capabilities: frozenset[str]
    prices: PriceList | None
    dimensions: int | None = None
    max_output_tokens: int | None = None
    fallbacks: tuple[str, ...] = ()
    base_url: str | None = None
    credential: str | None = field(default=None, repr=False)
