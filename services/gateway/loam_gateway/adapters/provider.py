"""A model's provider in neutral words: what is called, what it answers, and how a call fails."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class FailureKind(StrEnum):
    """What to do about a failed call depends on nothing else."""

    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    BROKEN_OFF = "broken_off"
    INVALID = "invalid"
    REFUSED = "refused"
    CIRCUIT_OPEN = "circuit_open"


# What another region or model may do better. A call that was begun and not ended may have been billed: not among them.
RETRYABLE = frozenset(
    {FailureKind.THROTTLED, FailureKind.UNAVAILABLE, FailureKind.UNREACHABLE, FailureKind.CIRCUIT_OPEN}
)
MAYBE_BILLED = frozenset({FailureKind.TIMED_OUT, FailureKind.BROKEN_OFF})


class ProviderCallError(Exception):
    """A call that failed. `request_id` is the provider's own, where there was an answer.

    `retry_after` is in how many seconds it may be different, where that is known.
    """

    def __init__(self, kind: FailureKind, message: str, request_id: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = kind.value
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Target:
    """A model at a place. `region` is "" where a provider has none, `base_url` None where it has a usual address.

    `api_key` is the provider's key to call with; without one the platform's AWS credentials count, on Bedrock.
    """

    model_id: str
    region: str = ""
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. `input_tokens` is what a header says, of an answer whose body does not."""

    body: dict[str, Any]
    request_id: str
    input_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    name: str
    payload: dict[str, Any]


class Client(Protocol):
    """Calls models of one provider. Bodies are the provider's own, encoded. Everything raises ProviderCallError."""

    async def complete(self, target: Target, body: bytes) -> Reply:
        """One whole answer of a chat."""

    def stream(self, target: Target, body: bytes) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """The events of a chat's answer as they come. Leaving the context early ends the call at the provider."""

    async def count(self, target: Target, body: bytes) -> int:
        """The input tokens of a chat, as the provider counts them before it is begun."""

    async def invoke(self, target: Target, body: bytes) -> Reply:
        """One answer of a model that does not chat: embeddings, rankings."""
