"""A call that is known to be allowed, and what becomes of it in the ledger."""

from collections.abc import Iterator
from dataclasses import dataclass

from loam_gateway.adapters.provider import Target
from loam_gateway.cache.policy import OFF, CachePolicy
from loam_gateway.directory.model import Model, Principal, Tenant
from loam_gateway.ledger.model import HoldRequest, IdempotencyClaim, Kind
from loam_gateway.metering.bounds import USEFUL_OUTPUT_TOKENS
from loam_gateway.metering.charge import Quote
from loam_gateway.metering.fairness import Slot


@dataclass(frozen=True, slots=True)
class Order:
    """Who asks, on which request, and which models may serve it, in the order to try them."""

    caller: Principal
    tenant: Tenant
    models: tuple[Model, ...]
    request_id: str
    hold_seconds: float
    slot: Slot
    claim: IdempotencyClaim | None = None
    cache: CachePolicy = OFF

    @property
    def root_request_id(self) -> str:
        """The public request that this belongs to."""
        return self.caller.root_request_id or self.request_id

    def own_key(self, model: Model) -> str | None:
        """The tenant's own key that a call of `model` goes out with, if any."""
        return self.tenant.own_key(model)

    def hold_request(self, quote: Quote, kind: Kind) -> HoldRequest:
        """What to ask the ledger for."""
        return HoldRequest(
            root_request_id=self.root_request_id,
            tenant=self.tenant.name,
            key_id=self.caller.key_id,
            kind=kind,
            model=quote.model.name,
            fixed_nanos=quote.fixed_nanos,
            output_nanos_per_million=quote.output_nanos_per_million,
            max_output_tokens=quote.output_tokens,
            min_output_tokens=min(quote.output_tokens, USEFUL_OUTPUT_TOKENS),
            lifetime_seconds=self.hold_seconds,
            user=self.caller.user,
            run=self.caller.run,
            pipeline=self.caller.pipeline or self.caller.workload,
            agent=self.caller.agent,
            markup_ppm=self.tenant.markup_ppm,
            idempotency=self.claim,
            byok=quote.free,
        )

    def metadata(self) -> dict[str, str]:
        """What the provider's invocation log says about this call."""
        facts = {
            "loam-tenant": self.tenant.name,
            "loam-key": self.caller.key_id,
            "loam-request": self.root_request_id,
        }
        return {name: value[:256] for name, value in facts.items()}


def targets(quote: Quote, default_region: str) -> Iterator[Target]:
    """Where the model can be called, in the order of its regions; only Bedrock has any."""
    model, api_key = quote.model, quote.api_key or quote.model.credential
    regions = (model.regions or (default_region,)) if model.provider == "Bedrock" else ("",)
    for region in regions:
        yield Target(model.model_id, region, api_key, model.base_url)
