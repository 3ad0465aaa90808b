"""Calling a model where it can be called: region after region, as long as nothing was billed."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import structlog

from loam_gateway.adapters import jsonapi
from loam_gateway.adapters.anthropic import Anthropic
from loam_gateway.adapters.bedrock import Bedrock
from loam_gateway.adapters.openai import OpenAI
from loam_gateway.adapters.provider import MAYBE_BILLED, RETRYABLE, Client, FailureKind, ProviderCallError, Target
from loam_gateway.directory.model import Model
from loam_gateway.metering.breaker import Breaker, Breakers
from loam_gateway.metering.calls import Call
from loam_gateway.metering.charge import Charge, Quote
from loam_gateway.metering.order import targets
from loam_gateway.metrics import Metrics
from loam_gateway.settings import Settings

_DEFAULT_REGION = "us-east-1"
_log = structlog.get_logger()
_Result = TypeVar("_Result")


class Provider:
    """All providers, with what is tried when a region does not serve."""

    def __init__(
        self, clients: Mapping[str, Client], metrics: Metrics, breakers: Breakers, default_region: str
    ) -> None:
        self._clients = clients
        self._metrics = metrics
        self._breakers = breakers
        self._default_region = default_region

    @property
    def failing(self) -> bool:
        """Whether calls have lately failed so often that some are not made."""
        return self._breakers.any_open

    def promising(self, offers: Iterable[Call]) -> Iterator[Call]:
        """Those of `offers` that need not be left alone everywhere: for the others no hold is taken. At least one."""
        left_alone: Call | None = None
        some = False
        for offer in offers:
            if self._may_be_called(offer.quote):
                some = True
                yield offer
            else:
                left_alone = left_alone or offer
        if left_alone is not None and not some:
            yield left_alone

    def _may_be_called(self, quote: Quote) -> bool:
        places = targets(quote, self._default_region)
        return any(self._breakers.of(quote.model.name, place.region).would_admit for place in places)

    async def call(self, charge: Charge, do: Callable[[Client, Target], Awaitable[_Result]]) -> _Result:
        """What `do` gives in the first region that serves. Raises ProviderCallError, the last region's."""
        model, failure = charge.quote.model, None
        client = self._clients[model.provider]
        for target in targets(charge.quote, self._default_region):
            breaker = self._breakers.of(model.name, target.region)
            if not breaker.admits():
                failure = failure or _left_alone(model, breaker)
                continue
            charge.region, charge.sent, begun = target.region, True, time.perf_counter()
            try:
                with breaker.calling(), charge.span.calling("attempt", {"cloud.region": target.region}):
                    result = await do(client, target)
            except ProviderCallError as error:
                charge.sent = error.kind in MAYBE_BILLED
                self._note(target, charge, error)
                if error.kind not in RETRYABLE:
                    raise
                failure = error
            else:
                elapsed = time.perf_counter() - begun
                charge.provider_seconds += elapsed
                self._metrics.provider_seconds.labels(model.name, target.region).observe(elapsed)
                return result
        assert failure is not None
        raise failure

    async def count(self, quote: Quote, body: bytes) -> int | None:
        """The input tokens as the provider counts them; None when it does not, for whatever reason."""
        target = next(targets(quote, self._default_region))
        try:
            return await self._clients[quote.model.provider].count(target, body)
        except ProviderCallError as error:
            _log.info("tokens were not counted", model=quote.model.name, kind=error.kind.value, reason=error.message)
            return None

    def _note(self, target: Target, charge: Charge, error: ProviderCallError) -> None:
        model = charge.quote.model.name
        self._metrics.provider_failures.labels(model, target.region, error.kind.value).inc()
        _log.warning(
            "the provider failed",
            model=model,
            region=target.region,
            kind=error.kind.value,
            # What a provider says of an invalid request may quote it.
            reason="" if error.kind is FailureKind.INVALID else error.message,
            provider_request_id=error.request_id,
        )


def _left_alone(model: Model, breaker: Breaker) -> ProviderCallError:
    message = f'the model "{model.name}" has failed again and again and is left alone for a moment'
    return ProviderCallError(FailureKind.CIRCUIT_OPEN, message, retry_after=breaker.seconds_left)


@contextlib.asynccontextmanager
async def opened(settings: Settings, metrics: Metrics) -> AsyncIterator[Provider]:
    """The clients of all providers, for the time of the context."""
    patience = {
        "connect_timeout": settings.provider_connect_timeout,
        "read_timeout": settings.provider_read_timeout,
    }
    async with Bedrock.open(**patience) as bedrock, jsonapi.opened(**patience) as session:
        clients: dict[str, Client] = {"Bedrock": bedrock, "Anthropic": Anthropic(session), "OpenAI": OpenAI(session)}
        breakers = Breakers(settings.circuit_failures, settings.circuit_cooldown_seconds, metrics.breakers)
        yield Provider(clients, metrics, breakers, bedrock.default_region() or _DEFAULT_REGION)
