"""The guarded HTTP client."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver

from loam_shared.egress.hop import Hop
from loam_shared.egress.pinning import JudgedResolver, SystemResolver, admitted_socket, admitting, check
from loam_shared.egress.policy import Policy
from loam_shared.errors import DeadlineExceededError, LoamError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class EgressFailedError(LoamError):
    """It was allowed, but there was no proper answer: no such host, no connection, TLS, or an answer too large."""

    status, code, type = 502, "egress_failed", "server_error"


@dataclass(frozen=True, slots=True)
class EgressResponse:
    """The last answer. Names of headers are in lower case; the body is as it was sent, so `identity` is asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class EgressClient:
    """HTTP by one policy: no proxies, no cookies, no credentials of the platform, no redirects that are not judged.

    A client keeps connections for reuse, so it must not be shared by policies that differ.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        connector = aiohttp.TCPConnector(
            resolver=JudgedResolver(policy, resolver or SystemResolver()),
            # A cached answer could not be judged by the connection that it is for.
            use_dns_cache=False,
            socket_factory=admitted_socket,
            ssl=ssl_context or True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            # One deadline covers all redirects, so a single request needs none of its own.
            timeout=aiohttp.ClientTimeout(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
    ) -> EgressResponse:
        """Ask `url` and give its last answer, whatever its status.

        Raises EgressRefusedError for what the policy does not permit, EgressFailedError, and DeadlineExceededError.
        """
        hop = Hop.first(method, url, headers or {}, orjson.dumps(json) if json is not None else body)
        if json is not None:
            hop.headers.setdefault("content-type", "application/json")
        with _translated():
            async with asyncio.timeout(self._policy.timeout):
                return await self._follow(hop)

    async def _follow(self, hop: Hop) -> EgressResponse:
        for _ in range(self._policy.max_redirects + 1):
            answer = await self._send(hop)
            location = answer.headers.get("location") if answer.status in _REDIRECTS else None
            if location is None:
                return answer
            hop = hop.redirected(answer.status, location)
        raise EgressFailedError(f"the address redirects more than {self._policy.max_redirects} times")

    async def _send(self, hop: Hop) -> EgressResponse:
        check(hop.target, self._policy)
        with admitting(hop.target):
            async with self._session.request(
                hop.method, hop.target.url, headers=hop.headers, data=hop.body, allow_redirects=False
            ) as response:
                body = await self._read(response)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return EgressResponse(response.status, headers, body)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._policy.max_response_bytes:
                response.close()
                raise EgressFailedError(f"the answer is larger than {self._policy.max_response_bytes} bytes")
        return bytes(body)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Failures as sentences of our own: those of the libraries tell which address a name has."""
    try:
        yield
    except TimeoutError as error:
        raise DeadlineExceededError("the address took too long to answer") from error
    except aiohttp.ClientConnectorDNSError as error:
        raise EgressFailedError("the address has a host that cannot be found") from error
    except aiohttp.ClientSSLError as error:
        raise EgressFailedError("the address has no valid certificate, or speaks no TLS") from error
    except (aiohttp.ClientConnectorError, ConnectionError) as error:
        raise EgressFailedError("the address cannot be connected to") from error
    except (aiohttp.ClientError, OSError) as error:
        raise EgressFailedError("the address gives no proper HTTP answer") from error
