"""The gateway's public API, as the command calls it."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from loam_cli.errors import CommandError
from loam_shared.contracts.retrieval import ChatEvent

Json = dict[str, Any]
_TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=5)


class Gateway:
    """Calls with one API key. Every method raises CommandError with the gateway's own sentence when it refuses."""

    def __init__(self, http: aiohttp.ClientSession, url: str, api_key: str) -> None:
        self._http = http
        self.url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"}

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, api_key: str) -> AsyncIterator["Gateway"]:
        """A client with connections of its own."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
            yield cls(http, url, api_key)

    async def upload(self, pipeline: str, name: str, content: bytes) -> Json:
        """Hand in a document; it is indexed afterwards."""
        # A name may hold slashes, which are not to be percent-encoded.
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", content, filename=name)
        return await self._json("POST", f"/v1/pipelines/{pipeline}/documents", data=form)

    async def documents(self, pipeline: str) -> AsyncIterator[Json]:
        """Every document of a pipeline."""
        cursor: str | None = None
        while True:
            query = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
            page = await self._json("GET", f"/v1/pipelines/{pipeline}/documents", params=query)
            for document in page["documents"]:
                yield document
            cursor = page.get("nextCursor")
            if cursor is None:
                return

    async def remove_document(self, pipeline: str, document_id: str) -> Json:
        """Have a document taken out of the index."""
        return await self._json("DELETE", f"/v1/pipelines/{pipeline}/documents/{document_id}")

    async def retry_document(self, pipeline: str, document_id: str) -> Json:
        """Have a document that failed read anew."""
        return await self._json("POST", f"/v1/pipelines/{pipeline}/documents/{document_id}/retry")

    async def pipelines(self) -> list[Json]:
        """Every pipeline of the tenant, and how far it is."""
        answer = await self._json("GET", "/v1/pipelines")
        return list(answer["pipelines"])

    async def pipeline(self, name: str) -> Json:
        """One pipeline: how far it is, its documents by status, and why some failed."""
        return await self._json("GET", f"/v1/pipelines/{name}")

    async def versions(self, pipeline: str) -> list[Json]:
        """The index versions that are kept, newest first."""
        answer = await self._json("GET", f"/v1/pipelines/{pipeline}/versions")
        return list(answer["versions"])

    async def rollback(self, pipeline: str, version: int) -> Json:
        """Answer from another index version from now on."""
        return await self._json("POST", f"/v1/pipelines/{pipeline}/rollback", json={"version": version})

    async def sync(self, pipeline: str) -> None:
        """Have the sources looked at now."""
        await self._json("POST", f"/v1/pipelines/{pipeline}/sync")

    async def chat(self, pipeline: str, messages: list[Json], session: str | None = None) -> AsyncIterator[ChatEvent]:
        """The events of an answer; an `error` event is raised."""
        body = {"messages": messages, "stream": True} | ({"sessionId": session} if session else {})
        async with self._call("POST", f"/v1/pipelines/{pipeline}/chat", json=body) as response:
            async for event in _events(response.content):
                if event.event == "error":
                    raise CommandError(_sentence(event.data) or "the answer broke off")
                yield event

    async def usage(self, query: Mapping[str, str]) -> Json:
        """Sums from the ledger."""
        return await self._json("GET", "/v1/usage", params=query)

    async def budget(self) -> Json:
        """The caps that hold for this key."""
        return await self._json("GET", "/v1/usage/budget")

    async def keys(self) -> Json:
        """The tenant's keys."""
        return await self._json("GET", "/v1/auth/keys")

    async def create_key(self, body: Json) -> Json:
        """A new key, shown this once."""
        return await self._json("POST", "/v1/auth/keys", json=body)

    async def rotate_key(self, key_id: str, overlap_hours: float) -> Json:
        """A new secret for a key."""
        query = {"overlapHours": str(overlap_hours)}
        return await self._json("POST", f"/v1/auth/keys/{key_id}/rotate", params=query)

    async def revoke_key(self, key_id: str) -> None:
        """End a key at once."""
        async with self._call("DELETE", f"/v1/auth/keys/{key_id}"):
            pass

    async def health(self) -> Json:
        """What the gateway says of itself, well or not."""
        try:
            async with self._http.get(f"{self.url}/v1/health") as response:
                answer: Json = await response.json()
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(self.url, error) from error

    async def _json(self, method: str, path: str, **options: Any) -> Json:
        async with self._call(method, path, **options) as response:
            answer: Json = await response.json()
            return answer

    @asynccontextmanager
    async def _call(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._http.request(method, self.url + path, headers=self._headers, **options) as response:
                if response.status >= 400:
                    raise CommandError(_refusal(response.status, await response.text()))
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(self.url, error) from error


async def _events(stream: aiohttp.StreamReader) -> AsyncIterator[ChatEvent]:
    """Server-sent events; each is a name and one line of JSON."""
    name = ""
    async for raw in stream:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            yield ChatEvent.model_validate({"event": name, "data": json.loads(line.removeprefix("data:"))})


def _refusal(status: int, text: str) -> str:
    try:
        sentence = _sentence(json.loads(text))
    except ValueError:
        sentence = None
    return sentence or f"the gateway answered with status {status}"


def _sentence(body: Any) -> str | None:
    error = body.get("error") if isinstance(body, dict) else None
    return f"{error['message']} ({error['code']})" if isinstance(error, dict) else None


def _unreachable(url: str, error: Exception) -> CommandError:
    reason = str(error) or type(error).__name__
    return CommandError(f"the gateway at {url} does not answer: {reason}")
