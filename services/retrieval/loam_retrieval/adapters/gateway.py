"""The gateway's internal listener, called with the caller's own token, so that the caller is who pays."""

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from loam_shared import errors, telemetry
from loam_shared.contracts.retrieval import Usage

Vector = NDArray[np.float32]
Json = dict[str, Any]

_BY_CODE: dict[str, type[errors.LoamError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LoamError)
}


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed answer: some text, or (at the end) what it has used."""

    text: str = ""
    usage: Usage | None = None


class Gateway:
    """Every method raises the LoamError that the gateway answered with, or UnavailableError when it is away."""

    def __init__(self, session: aiohttp.ClientSession, url: str, answer_seconds: float) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/internal/v1"
        self._answer_seconds = answer_seconds

    async def jwks(self) -> Json:
        """The public keys that caller tokens are signed with."""
        async with self._call("GET", "jwks", None, None) as response:
            keys: Json = orjson.loads(await response.read())
            return keys

    async def embed(self, token: str, texts: Sequence[str], model: str, dimensions: int) -> tuple[list[Vector], Usage]:
        """The vectors of `texts`, in one call."""
        body = {"model": model, "input": list(texts), "dimensions": dimensions, "encoding_format": "base64"}
        async with self._call("POST", "embeddings", token, body) as response:
            answer = orjson.loads(await response.read())
        found = (base64.b64decode(one["embedding"]) for one in answer["data"])
        return [np.frombuffer(vector, dtype="<f4") for vector in found], _usage(answer["usage"])

    async def rerank(self, token: str, query: str, texts: Sequence[str], model: str) -> tuple[list[float], Usage]:
        """How well each of `texts` answers `query`, higher is better. Raises ProviderError unless each has a score."""
        body = {"model": model, "query": query, "documents": list(texts)}
        async with self._call("POST", "rerank", token, body) as response:
            answer = orjson.loads(await response.read())
        scores = {result["index"]: float(result["relevance_score"]) for result in answer["results"]}
        if scores.keys() != set(range(len(texts))):
            raise errors.ProviderError("the reranker did not score every passage")
        return [scores[index] for index in range(len(texts))], _usage(answer["usage"])

    async def completion(self, token: str, request: Json) -> tuple[str, Usage]:
        """The model's whole answer to `request`, an OpenAI chat completion."""
        async with self._call("POST", "chat/completions", token, request) as response:
            answer = orjson.loads(await response.read())
        return answer["choices"][0]["message"]["content"] or "", _usage(answer["usage"])

    async def complete(self, token: str, request: Json) -> AsyncGenerator[Delta, None]:
        """The model's answer to `request`, an OpenAI chat completion, as it is made. Closing ends the model's work."""
        body = request | {"stream": True, "stream_options": {"include_usage": True}}
        async with self._call("POST", "chat/completions", token, body) as response:
            async for line in _lines(response):
                if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                    yield _delta(orjson.loads(line[5:]))

    @asynccontextmanager
    async def _call(
        self, method: str, path: str, token: str | None, body: Json | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        headers |= telemetry.headers()
        data = orjson.dumps(body) if body is not None else None
        timeout = aiohttp.ClientTimeout(total=self._answer_seconds, connect=5)
        url = f"{self._url}/{path}"
        try:
            async with self._session.request(method, url, data=data, headers=headers, timeout=timeout) as response:
                if response.status >= 400:
                    raise _refusal(await response.read(), response)
                yield response
        except TimeoutError as error:
            raise errors.DeadlineExceededError("the model took longer than a pipeline may") from error
        except aiohttp.ClientError as error:
            raise errors.UnavailableError("the gateway cannot be reached", retry_after=2) from error


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length; aiohttp's own iteration gives up on those longer than its buffer."""
    rest = b""
    async for data in response.content.iter_any():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line


def _delta(chunk: Json) -> Delta:
    if "error" in chunk:
        raise _error(chunk["error"], None)
    text = "".join(choice["delta"].get("content") or "" for choice in chunk.get("choices", ()))
    return Delta(text, _usage(chunk["usage"]) if chunk.get("usage") else None)


def _usage(found: Json) -> Usage:
    return Usage(
        input_tokens=found.get("prompt_tokens", 0),
        output_tokens=found.get("completion_tokens", 0),
        cost_usd=str(found.get("cost_usd", "0")),
    )


def _refusal(body: bytes, response: aiohttp.ClientResponse) -> errors.LoamError:
    after = response.headers.get("retry-after", "")
    try:
        return _error(orjson.loads(body)["error"], int(after) if after.isdigit() else None)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return errors.UnavailableError(f"the gateway answered {response.status}")


def _error(found: Json, retry_after: int | None) -> errors.LoamError:
    known = {"type", "code", "message", "param", "requestId"}
    kind = _BY_CODE.get(found.get("code", ""), errors.ProviderError)
    details = {name: value for name, value in found.items() if name not in known}
    return kind(str(found.get("message")), param=found.get("param"), retry_after=retry_after, **details)
