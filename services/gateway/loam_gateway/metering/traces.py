"""What traces say about calls of models: the semantic conventions for generative AI, and Loam's own ``loam.*``."""

from contextlib import AbstractContextManager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loam_gateway.directory.model import Model
from loam_gateway.ledger.model import HoldRequest, Kind, Posting, Settlement
from loam_shared import telemetry
from loam_shared.money import NANOS_PER_USD
from loam_shared.telemetry import Span, Value

# The names that the conventions give to operations and providers.
_OPERATIONS = {Kind.COMPLETION: "chat", Kind.STREAM: "chat", Kind.EMBEDDING: "embeddings", Kind.RERANK: "rerank"}
_PROVIDERS = {"Bedrock": "aws.bedrock", "Anthropic": "anthropic", "OpenAI": "openai"}


# What an answer's headers say about itself.
_TOLD_BY_HEADERS = {
    b"x-loam-cache": "loam.cache",
    b"x-loam-cost-usd": "loam.cost_usd",
    b"x-loam-model": "loam.model",
    b"x-loam-replayed": "loam.replayed",
    b"x-request-id": "loam.request_id",
}


class AnswersInTraces:
    """Puts what the headers of an answer say, its cost and whether it came from the cache, on the request's span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""
        span = telemetry.current()

        async def read(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                span.set({_TOLD_BY_HEADERS[n]: v.decode("latin-1") for n, v in headers if n in _TOLD_BY_HEADERS})
            await send(message)

        await self._app(scope, receive, read)


def caller(tenant: str, key_id: str) -> None:
    """Say on the request's span who asks."""
    if telemetry.on():
        telemetry.current().set({"loam.tenant": tenant, "loam.key_id": key_id})


def call(request: HoldRequest, model: Model) -> AbstractContextManager[Span]:
    """The span of one model's call, its retries in other regions included, from the hold to the posting."""
    if not telemetry.on():
        return telemetry.current().child("")
    operation = _OPERATIONS.get(request.kind, request.kind.value)
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider_name(model.provider),
        "gen_ai.request.model": model.name,
        "gen_ai.response.model": model.model_id,
        "gen_ai.request.stream": True if request.kind is Kind.STREAM else None,
        "loam.tenant": request.tenant,
        "loam.key_id": request.key_id,
        "loam.pipeline": request.pipeline,
        "loam.agent": request.agent,
    }
    return telemetry.current().calling(f"{operation} {model.name}", attributes)


def posted(span: Span, settlement: Settlement, posting: Posting) -> None:
    """Say what the call used and cost. As the conventions want it, cached tokens are among the input's."""
    if not telemetry.on():
        return
    tokens = settlement.tokens
    span.set(
        {
            "gen_ai.usage.input_tokens": tokens.input + tokens.cache_read + tokens.cache_write,
            "gen_ai.usage.output_tokens": tokens.output,
            "gen_ai.usage.cache_read.input_tokens": tokens.cache_read or None,
            "gen_ai.usage.cache_creation.input_tokens": tokens.cache_write or None,
            "cloud.region": settlement.region or None,
            "loam.cost_usd": posting.cost_nanos / NANOS_PER_USD,
            "loam.estimated": settlement.estimated or None,
            "loam.outcome": settlement.outcome.value,
        }
    )


def finished(span: Span, reason: str) -> None:
    """Say why the model stopped, in OpenAI's words."""
    if telemetry.on():
        span.set({"gen_ai.response.finish_reasons": (reason,)})


def begun_to_answer(span: Span, seconds: float) -> None:
    """Say how long a stream's first chunk took."""
    if telemetry.on():
        span.set({"gen_ai.response.time_to_first_chunk": seconds})


def provider_name(provider: str) -> str:
    """The conventions' name of a ModelRoute's provider."""
    return _PROVIDERS.get(provider, provider.lower())
