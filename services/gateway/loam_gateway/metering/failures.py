"""What a caller is told when the provider did not do its part."""

import math
from collections.abc import Callable
from typing import Any

from loam_gateway.adapters.provider import FailureKind, ProviderCallError
from loam_shared.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    LoamError,
    ProviderError,
    RateLimitedError,
    UnavailableError,
)

# When to come back to a provider that does not say so itself.
_THROTTLED_SECONDS = 2


def told(error: ProviderCallError) -> LoamError:
    """`error` in Loam's words, with the provider's request id for its support."""
    return _TELL[error.kind](error)


def _invalid(error: ProviderCallError) -> LoamError:
    return InvalidRequestError(f"the model refused the request: {error.message}", **_facts(error))


def _throttled(error: ProviderCallError) -> LoamError:
    wait = math.ceil(error.retry_after or _THROTTLED_SECONDS)
    return RateLimitedError(f"the model's provider is throttling: {error.message}", retry_after=wait, **_facts(error))


def _timed_out(error: ProviderCallError) -> LoamError:
    return DeadlineExceededError(error.message, **_facts(error))


def _failed(error: ProviderCallError) -> LoamError:
    return ProviderError(f"the model's provider failed: {error.message}", **_facts(error))


def _left_alone(error: ProviderCallError) -> LoamError:
    return UnavailableError(error.message, retry_after=max(1, math.ceil(error.retry_after or 1)))


def _facts(error: ProviderCallError) -> dict[str, Any]:
    return {"providerRequestId": error.request_id} if error.request_id else {}


_TELL: dict[FailureKind, Callable[[ProviderCallError], LoamError]] = {
    FailureKind.INVALID: _invalid,
    FailureKind.THROTTLED: _throttled,
    FailureKind.TIMED_OUT: _timed_out,
    FailureKind.BROKEN_OFF: _failed,
    FailureKind.UNAVAILABLE: _failed,
    FailureKind.UNREACHABLE: _failed,
    FailureKind.REFUSED: _failed,
    FailureKind.CIRCUIT_OPEN: _left_alone,
}
