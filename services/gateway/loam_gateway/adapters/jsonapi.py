"""JSON over HTTPS with answers as server-sent events: what Anthropic and OpenAI have in common."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp
import orjson

from loam_gateway.adapters.provider import FailureKind, ProviderCallError

_MAX_EVENT_BYTES = 16 * 2**20
# A few hundred vectors of the longest kind.
_MAX_ANSWER_BYTES = 64 * 2**20
_LONGEST_WAIT_SECONDS = 3600.0

_KINDS = {
    400: FailureKind.INVALID,
    408: FailureKind.TIMED_OUT,
    413: FailureKind.INVALID,
    422: FailureKind.INVALID,
    429: FailureKind.THROTTLED,
    504: FailureKind.TIMED_OUT,
}

# What these say may quote the platform's credential, and is not for callers.
_ABOUT_THE_KEY = frozenset({401, 403})


class JsonApi:
    """One server's API. Everything raises ProviderCallError. `request_id_header` is where it says its request id."""

    def __init__(self, session: aiohttp.ClientSession, name: str, request_id_header: str) -> None:
        self._session = session
        self._name = name
        self._request_id_header = request_id_header

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], str]:
        """The answer, and its request id."""
        async with self._call(url, headers, body) as response:
            request_id = response.headers.get(self._request_id_header, "")
            return object_in(await _whole(response), request_id), request_id

    @contextlib.asynccontextmanager
    async def events(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """Name and data of each event, as they come. Leaving the context early ends the call."""
        async with self._call(url, headers, body) as response:
            try:
                yield self._told(_events(response))
            finally:
                # A connection with events still on it cannot be used again; closing it tells the server to stop.
                response.close()

    async def _told(self, events: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[tuple[str, bytes]]:
        with self._failures_told():
            async for event in events:
                yield event

    @contextlib.asynccontextmanager
    async def _call(self, url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        given = {"content-type": "application/json", **headers}
        with self._failures_told():
            # A redirect would carry the credential elsewhere.
            async with self._session.post(url, data=body, headers=given, allow_redirects=False) as response:
                if response.status != 200:
                    raise self._failure(response, await _whole(response))
                yield response

    def _failure(self, response: aiohttp.ClientResponse, data: bytes) -> ProviderCallError:
        otherwise = FailureKind.UNAVAILABLE if response.status >= 500 else FailureKind.REFUSED
        told = "" if response.status in _ABOUT_THE_KEY else message_in(_json(data))
        return ProviderCallError(
            _KINDS.get(response.status, otherwise),
            told or f"{self._name} answered with status {response.status}",
            response.headers.get(self._request_id_header, ""),
            _seconds(response.headers.get("retry-after", "")),
        )

    @contextlib.contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            kind = FailureKind.UNREACHABLE if connecting else FailureKind.TIMED_OUT
            raise ProviderCallError(kind, f"{self._name} did not answer in time") from error
        except aiohttp.ClientConnectorError as error:
            raise ProviderCallError(FailureKind.UNREACHABLE, f"{self._name} cannot be reached") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise ProviderCallError(FailureKind.BROKEN_OFF, f"{self._name} broke off: {error}") from error


@contextlib.asynccontextmanager
async def opened(*, connect_timeout: float, read_timeout: float) -> AsyncIterator[aiohttp.ClientSession]:
    """Connections whose calls fail when nothing was heard for `read_timeout` seconds."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout, sock_read=read_timeout)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=20)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


def object_in(data: bytes, request_id: str = "") -> dict[str, Any]:
    """The JSON object in `data`. Raises ProviderCallError."""
    answer = _json(data)
    if not isinstance(answer, dict):
        raise ProviderCallError(FailureKind.BROKEN_OFF, "the provider said something that is no JSON", request_id)
    return answer


def message_in(answer: Any) -> str:
    """What an error says; every server has its own shape for it."""
    error = answer.get("error", answer) if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""


def _seconds(text: str) -> float | None:
    """What Retry-After says, where it says seconds."""
    return min(float(text), _LONGEST_WAIT_SECONDS) if text.isdecimal() else None


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The answer's body. Raises ValueError for one without end."""
    body = bytearray()
    async for received in response.content.iter_any():
        body += received
        if len(body) > _MAX_ANSWER_BYTES:
            raise ValueError("the answer is too long")
    return bytes(body)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, bytes]]:
    """The events of the stream (HTML, 9.2.6), but for ids and retry times, which nobody sends here.

    Raises ValueError for an event without end.
    """
    buffer, name, data = b"", "", bytearray()
    async for received in response.content.iter_any():
        *lines, buffer = (buffer + received).split(b"\n")
        if len(buffer) + len(data) > _MAX_EVENT_BYTES:
            raise ValueError("an event is too long")
        for line in lines:
            field, _, value = line.rstrip(b"\r").partition(b":")
            if field == b"event":
                name = value.strip().decode()
            elif field == b"data":
                data += value.removeprefix(b" ")
            elif not field and data:
                yield name, bytes(data)
                name, data = "", bytearray()
