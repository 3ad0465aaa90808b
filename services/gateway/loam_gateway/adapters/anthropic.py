"""Anthropic's Messages API, or a server that speaks it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from loam_gateway.adapters.jsonapi import JsonApi, message_in, object_in
from loam_gateway.adapters.provider import Event, FailureKind, ProviderCallError, Reply, Target

_URL = "https://api.anthropic.com"
_VERSION = "2023-06-01"

_KINDS = {
    "invalid_request_error": FailureKind.INVALID,
    "rate_limit_error": FailureKind.THROTTLED,
    "timeout_error": FailureKind.TIMED_OUT,
    "authentication_error": FailureKind.REFUSED,
    "permission_error": FailureKind.REFUSED,
}


class Anthropic:
    """A Client."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._api = JsonApi(session, "Anthropic", "request-id")

    async def complete(self, target: Target, body: bytes) -> Reply:
        """One message. Raises ProviderCallError."""
        answer, request_id = await self._api.post(_url(target), _headers(target), body)
        return Reply(answer, request_id)

    @contextlib.asynccontextmanager
    async def stream(self, target: Target, body: bytes) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of a message as they come. Raises ProviderCallError."""
        async with self._api.events(_url(target), _headers(target), body) as events:
            yield _told(events)

    async def count(self, target: Target, body: bytes) -> int:
        """The input tokens of a message. Raises ProviderCallError."""
        answer, request_id = await self._api.post(f"{_url(target)}/count_tokens", _headers(target), body)
        counted = answer.get("input_tokens")
        if not isinstance(counted, int):
            raise ProviderCallError(FailureKind.BROKEN_OFF, "Anthropic did not count", request_id)
        return counted

    async def invoke(self, target: Target, body: bytes) -> Reply:
        """Raises ProviderCallError: Anthropic has nothing but chats."""
        del target, body
        raise ProviderCallError(FailureKind.REFUSED, "Anthropic has no embeddings and no rankings")


async def _told(events: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[Event]:
    async for name, data in events:
        payload = object_in(data)
        if name == "error":
            raise _failure(payload)
        if name != "ping":
            yield Event(name, payload)


def _failure(payload: dict[str, Any]) -> ProviderCallError:
    error = payload.get("error")
    told = str(error.get("type")) if isinstance(error, dict) else ""
    message, request_id = message_in(payload) or "Anthropic broke off", str(payload.get("request_id") or "")
    return ProviderCallError(_KINDS.get(told, FailureKind.UNAVAILABLE), message, request_id)


def _url(target: Target) -> str:
    return f"{(target.base_url or _URL).rstrip('/').removesuffix('/v1')}/v1/messages"


def _headers(target: Target) -> dict[str, str]:
    if target.api_key is None:
        raise ProviderCallError(FailureKind.REFUSED, "no credential is configured for Anthropic")
    return {"x-api-key": target.api_key, "anthropic-version": _VERSION}
