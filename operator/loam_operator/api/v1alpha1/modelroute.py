"""ModelRoute: what callers may name as model, where it runs, and what it costs."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from loam_operator.api.base import AGE, READY, REASON, Column, Definition, Node, Resource
from loam_operator.api.rules import Rule, Unique, matching
from loam_operator.api.v1alpha1.common import ObjectName, Provider, SecretKeyRef, Status, Url, Usd

Capability = Literal["Chat", "Stream", "Tools", "Embed", "Rerank"]
Region = Annotated[
    str,
    Field(max_length=32),
    matching(r"^[a-z]{2}(-[a-z]+)+-[0-9]$", 'must be an AWS region, such as "us-east-1"'),
]


class PriceTier(Node):
    """Prices for requests with a long input; what is left out stays as in the price itself."""

    above_input_tokens: Annotated[int, Field(ge=1, le=100_000_000)]
    """The tier holds for requests with more input tokens than this."""
    input_per_million: Usd
    """USD for a million input tokens."""
    output_per_million: Usd | None = None
    """USD for a million output tokens."""
    cache_read_per_million: Usd | None = None
    """USD for a million input tokens read from the provider's prompt cache."""
    cache_write_per_million: Usd | None = None
    """USD for a million input tokens written to the provider's prompt cache."""


class Price(Node):
    """What the provider bills, in USD. The ledger charges exactly this."""

    input_per_million: Usd | None = None
    """USD for a million input tokens."""
    output_per_million: Usd | None = None
    """USD for a million output tokens."""
    cache_read_per_million: Usd | None = None
    """USD for a million input tokens read from the provider's prompt cache; the input price where left out."""
    cache_write_per_million: Usd | None = None
    """USD for a million input tokens written to the provider's prompt cache; the input price where left out."""
    per_thousand_queries: Usd | None = None
    """USD for a thousand queries, for rerankers."""
    tiers: Annotated[list[PriceTier], Field(max_length=8), Unique("above_input_tokens")] = []
    """Other prices for long inputs."""


def _priced(capability: str, *prices: str) -> Rule:
    fields = " && ".join(f"has(self.price.{price})" for price in prices)
    listed = " and ".join(prices)

    def holds(spec: "ModelRouteSpec") -> bool:
        if spec.price is None or capability not in spec.capabilities:
            return True
        return all(price in spec.price.to_manifest() for price in prices)

    return Rule(
        f"!has(self.price) || !('{capability}' in self.capabilities) || ({fields})",
        f"needs {listed} for the capability {capability}: what has no price cannot be charged",
        holds,
        field="price",
    )


def _either(first: bool, second: bool) -> bool:
    return first == second


class ModelRouteSpec(Node):
    """Where the model runs, what it can do and what it costs."""

    provider: Provider
    """Who serves the model. OpenAI stands for every endpoint that speaks its protocol."""
    model_id: Annotated[str, Field(min_length=1, max_length=2048)]
    """The provider's name of the model; on Bedrock a model id, an inference profile's id or an ARN."""
    regions: Annotated[list[Region], Field(max_length=16), Unique()] = []
    """AWS regions, tried in this order. Only for Bedrock, which needs at least one."""
    base_url: Url | None = None
    """The endpoint, such as https://vllm.example.com/v1; OpenAI's or Anthropic's own without it. Not for Bedrock."""
    credentials_secret_ref: SecretKeyRef | None = None
    """The platform's key for the provider, in a Secret of the platform's namespace. Bedrock takes AWS credentials."""
    capabilities: Annotated[list[Capability], Field(min_length=1, max_length=5), Unique()]
    """What callers may do with the model: exactly one of Chat, Embed and Rerank; Stream and Tools go with Chat."""
    dimensions: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Length of the vectors of an embedding model."""
    price: Price | None = None
    """What a call costs. A model without a price is known, but every call of it is refused."""
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The most output tokens of one call. What a call may cost is reckoned from it, so Chat needs it."""
    fallbacks: Annotated[list[ObjectName], Field(max_length=8), Unique()] = []
    """Other ModelRoutes, tried in this order when this one throttles, fails or has an open circuit breaker."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.provider == 'Bedrock') == (has(self.regions) && self.regions.size() > 0)",
            "must name at least one region for the provider Bedrock, and none for another provider",
            lambda spec: _either(spec.provider == "Bedrock", bool(spec.regions)),
            field="regions",
        ),
        Rule(
            "self.provider != 'Bedrock' || !has(self.baseUrl)",
            "must be left out for the provider Bedrock, whose endpoints AWS's own settings tell",
            lambda spec: spec.provider != "Bedrock" or spec.base_url is None,
            field="baseUrl",
        ),
        Rule(
            "self.provider != 'Bedrock' || !has(self.credentialsSecretRef)",
            "must be left out for the provider Bedrock, which takes its credentials from AWS's own chain",
            lambda spec: spec.provider != "Bedrock" or spec.credentials_secret_ref is None,
            field="credentialsSecretRef",
        ),
        Rule(
            "self.capabilities.filter(c, c in ['Chat', 'Embed', 'Rerank']).size() == 1",
            "must hold exactly one of Chat, Embed and Rerank",
            lambda spec: sum(kind in spec.capabilities for kind in ("Chat", "Embed", "Rerank")) == 1,
            field="capabilities",
        ),
        Rule(
            "'Chat' in self.capabilities || !self.capabilities.exists(c, c in ['Stream', 'Tools'])",
            "must hold Chat when it holds Stream or Tools",
            lambda spec: "Chat" in spec.capabilities or not {"Stream", "Tools"} & set(spec.capabilities),
            field="capabilities",
        ),
        Rule(
            "('Embed' in self.capabilities) == has(self.dimensions)",
            "must be set for the capability Embed, and left out without it",
            lambda spec: _either("Embed" in spec.capabilities, spec.dimensions is not None),
            field="dimensions",
        ),
        Rule(
            "!('Chat' in self.capabilities) || has(self.maxOutputTokens)",
            "must be set for the capability Chat: it bounds what one call may cost",
            lambda spec: "Chat" not in spec.capabilities or spec.max_output_tokens is not None,
            field="maxOutputTokens",
        ),
        _priced("Chat", "inputPerMillion", "outputPerMillion"),
        _priced("Embed", "inputPerMillion"),
        _priced("Rerank", "perThousandQueries"),
    )


class ModelRouteStatus(Status):
    """What the operator has seen; written by the operator only."""


class ModelRoute(Resource):
    """A model that callers may name, where it runs and what it costs. Tenants use those that their manifest allows."""

    definition: ClassVar[Definition] = Definition(
        kind="ModelRoute",
        plural="modelroutes",
        short_names=("mr",),
        scope="Cluster",
        columns=(
            Column("Provider", ".spec.provider", "Who serves the model."),
            Column("Model", ".spec.modelId", "The provider's name of the model."),
            Column("Input", ".spec.price.inputPerMillion", "USD for a million input tokens."),
            Column("Output", ".spec.price.outputPerMillion", "USD for a million output tokens."),
            READY,
            REASON,
            AGE,
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.spec.fallbacks) || !self.spec.fallbacks.exists(name, name == self.metadata.name)",
            "must not hold the route itself",
            lambda route: route.metadata.name not in route.spec.fallbacks,
            field="spec.fallbacks",
        ),
    )

    kind: Literal["ModelRoute"]
    spec: ModelRouteSpec
    status: ModelRouteStatus = ModelRouteStatus()
