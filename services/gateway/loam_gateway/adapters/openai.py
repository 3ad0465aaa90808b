"""OpenAI's API, or one of the many servers that speak it."""

import contextlib
from collections.abc import AsyncIterator

import aiohttp

from loam_gateway.adapters.jsonapi import JsonApi, message_in, object_in
from loam_gateway.adapters.provider import Event, FailureKind, ProviderCallError, Reply, Target

_URL = "https://api.openai.com/v1"


class OpenAI:
    """A Client."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._api = JsonApi(session, "the OpenAI-compatible server", "x-request-id")

    async def complete(self, target: Target, body: bytes) -> Reply:
        """One chat completion. Raises ProviderCallError."""
        return await self._post(target, "chat/completions", body)

    @contextlib.asynccontextmanager
    async def stream(self, target: Target, body: bytes) -> AsyncIterator[AsyncIterator[Event]]:
        """The chunks of a chat completion as they come. Raises ProviderCallError."""
        async with self._api.events(_url(target, "chat/completions"), _headers(target), body) as events:
            yield _told(events)

    async def count(self, target: Target, body: bytes) -> int:
        """Raises ProviderCallError: tokens are not counted before."""
        del target, body
        raise ProviderCallError(FailureKind.REFUSED, "OpenAI does not count tokens beforehand")

    async def invoke(self, target: Target, body: bytes) -> Reply:
        """Embeddings. Raises ProviderCallError."""
        return await self._post(target, "embeddings", body)

    async def _post(self, target: Target, path: str, body: bytes) -> Reply:
        answer, request_id = await self._api.post(_url(target, path), _headers(target), body)
        return Reply(answer, request_id)


async def _told(events: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[Event]:
    async for _name, data in events:
        if data == b"[DONE]":
            return
        payload = object_in(data)
        if "error" in payload:
            raise ProviderCallError(FailureKind.UNAVAILABLE, message_in(payload) or "the server broke off")
        yield Event("chunk", payload)


def _url(target: Target, path: str) -> str:
    return f"{(target.base_url or _URL).rstrip('/')}/{path}"


def _headers(target: Target) -> dict[str, str]:
    if target.api_key is not None:
        return {"authorization": f"Bearer {target.api_key}"}
    if target.base_url is None:
        raise ProviderCallError(FailureKind.REFUSED, "no credential is configured for OpenAI")
    # Servers within a cluster often ask for none.
    return {}
