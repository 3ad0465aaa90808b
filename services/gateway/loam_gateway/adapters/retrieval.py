"""A pipeline's retrieval service, as the gateway calls it: one connection pool for all of them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from pydantic import ValidationError

from loam_shared import errors, telemetry
from loam_shared.contracts import Wire
from loam_shared.contracts.retrieval import Chat, ChatEvent, Matches, Query
from loam_shared.http import REQUEST_ID

_MAX_EVENT_BYTES = 4 * 2**20
_AWAY = "the pipeline's retrieval service does not answer; it may be starting"
_KINDS: dict[str, type[errors.LoamError]] = {
    kind.code: kind
    for kind in (
        errors.InvalidRequestError,
        errors.BudgetExceededError,
        errors.ForbiddenError,
        errors.ModelNotPricedError,
        errors.NotFoundError,
        errors.RateLimitedError,
        errors.ProviderError,
        errors.UnavailableError,
        errors.DeadlineExceededError,
    )
}
_COMMON = frozenset({"type", "code", "message", "param", "requestId"})


@dataclass(frozen=True, slots=True)
class Call:
    """Where to, on whose behalf, under which request id, and for how many seconds at most."""

    endpoint: str
    token: str = field(repr=False)
    request_id: str
    timeout: float

    def headers(self) -> dict[str, str]:
        """Credentials and tracing of the call."""
        return {"authorization": f"Bearer {self.token}", REQUEST_ID: self.request_id} | telemetry.headers()


class Retrieval:
    """All pipelines' retrieval services, through a session made at start-up.

    Every call raises what the service answered as the LoamError that it was, UnavailableError when it is away, and
    DeadlineExceededError when it takes too long.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def query(self, call: Call, question: Query) -> Matches:
        """The best matches."""
        async with self._post(call, "query", question) as response:
            return Matches.model_validate_json(await response.read())

    @asynccontextmanager
    async def chat(self, call: Call, question: Chat) -> AsyncIterator[AsyncIterator[ChatEvent]]:
        """The answer's events; leaving the context ends the call, and so the provider's."""
        async with self._post(call, "chat", question) as response:
            yield _events(response.content)

    @asynccontextmanager
    async def _post(self, call: Call, path: str, body: Wire) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = call.headers() | {"content-type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=call.timeout, connect=5)
        url = f"{call.endpoint.rstrip('/')}/{path}"
        with _translated():
            async with self._session.post(url, data=body.to_json(), headers=headers, timeout=timeout) as response:
                if response.status != 200:
                    raise _error(await response.read())
                yield response


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise errors.UnavailableError(_AWAY, retry_after=2) from error
    except TimeoutError as error:
        raise errors.DeadlineExceededError("the pipeline's retrieval service took too long") from error
    except (aiohttp.ClientError, ValidationError, orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise errors.UnavailableError(_AWAY, retry_after=2) from error


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[ChatEvent]:
    """Server-sent events; comments and unknown fields are passed over, as the format asks."""
    name, data = "", b""
    with _translated():
        async for line in _lines(content):
            key, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if key == b"event":
                name = value.decode()
            elif key == b"data":
                data += value
            elif not line and name:
                yield ChatEvent.model_validate({"event": name, "data": orjson.loads(data or b"{}")})
                name, data = "", b""


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_EVENT_BYTES:
            raise errors.UnavailableError("the retrieval service sent an event without end")
        for line in lines:
            yield line.rstrip(b"\r")


def _error(body: bytes) -> errors.LoamError:
    try:
        return told_error(orjson.loads(body))
    except orjson.JSONDecodeError:
        return errors.UnavailableError("the pipeline's retrieval service failed", retry_after=2)


def told_error(told: Any) -> errors.LoamError:
    """What the service told in the shape of all errors, as the error that it was.

    Its refusal of our own credential, or a failure of its own, is none of the caller's: then it is just not available.
    """
    error = told.get("error") if isinstance(told, dict) else None
    kind = _KINDS.get(str(error.get("code"))) if isinstance(error, dict) else None
    if error is None or kind is None:
        return errors.UnavailableError("the pipeline's retrieval service failed", retry_after=2)
    details = {name: value for name, value in error.items() if name not in _COMMON}
    return kind(str(error.get("message")), param=error.get("param"), **details)
