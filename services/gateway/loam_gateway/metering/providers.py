"""Calling a model where it can be called: region after region, as long as nothing was billed."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from loam_gateway.adapters.bedrock import MAYBE_BILLED, RETRYABLE, Bedrock, BedrockError, Target
from loam_gateway.metering.charge import Charge
from loam_gateway.metering.order import targets
from loam_gateway.metrics import Metrics

_log = structlog.get_logger()
_Result = TypeVar("_Result")


class Provider:
    """Bedrock, with what is tried when a region does not serve."""

    def __init__(self, bedrock: Bedrock, metrics: Metrics, default_region: str) -> None:
        self._bedrock = bedrock
        self._metrics = metrics
        self._default_region = default_region

    async def call(self, charge: Charge, do: Callable[[Bedrock, Target], Awaitable[_Result]]) -> _Result:
        """What `do` gives in the first region that serves. Raises BedrockError, the last region's."""
        model, failure = charge.quote.model, None
        for target in targets(charge.quote, self._default_region):
            charge.region, charge.sent, begun = target.region, True, time.perf_counter()
            try:
                result = await do(self._bedrock, target)
            except BedrockError as error:
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

    def _note(self, target: Target, charge: Charge, error: BedrockError) -> None:
        model = charge.quote.model.name
        self._metrics.provider_failures.labels(model, target.region, error.kind.value).inc()
        _log.warning(
            "the provider failed",
            model=model,
            region=target.region,
            kind=error.kind.value,
            reason=error.message,
            provider_request_id=error.request_id,
        )
