"""Amazon Bedrock's runtime: Converse, ConverseStream and InvokeModel over one connection pool.

Endpoints, credentials and tokens come by AWS's own conventions, so pointing at a stand-in is configuration. The hot
path signs by itself and reads events with botocore's own part, without its client, which costs most of the time of a
call.
"""

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from time import time
from typing import Any
from urllib.parse import quote

import orjson
from aiobotocore.session import AioSession
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import BotoCoreError

from loam_gateway.adapters.http1 import Http1, Url
from loam_gateway.adapters.http1_connection import BrokenOffError, ConnectError, Response, SilenceError
from loam_gateway.adapters.provider import Event, FailureKind, ProviderCallError, Reply, Target
from loam_gateway.adapters.sigv4 import Signer

_SERVICE = "bedrock-runtime"
_SIGNING_NAME = "bedrock"
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
_PROFILE = re.compile(r"^(?:us|us-gov|eu|apac|jp|au|ca|global)\.")


_KINDS = {
    "ThrottlingException": FailureKind.THROTTLED,
    "ModelNotReadyException": FailureKind.THROTTLED,
    "ServiceQuotaExceededException": FailureKind.THROTTLED,
    "InternalServerException": FailureKind.UNAVAILABLE,
    "ServiceUnavailableException": FailureKind.UNAVAILABLE,
    "ModelErrorException": FailureKind.UNAVAILABLE,
    "ModelStreamErrorException": FailureKind.UNAVAILABLE,
    "ModelTimeoutException": FailureKind.TIMED_OUT,
    "ValidationException": FailureKind.INVALID,
}


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Where Bedrock is in a region, and who signs for it there."""

    url: str
    signer: Signer


class Bedrock:
    """The client. `open` makes one; it lives as long as the process."""

    def __init__(self, http: Http1, aws: AioSession) -> None:
        self._http = http
        self._aws = aws
        self._endpoints: dict[str, _Endpoint] = {}
        self._credentials: Any = None
        self._token: Any = aws.get_auth_token(signing_name=_SIGNING_NAME)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, *, connect_timeout: float, read_timeout: float) -> AsyncIterator["Bedrock"]:
        """A client whose calls fail when nothing was heard for `read_timeout` seconds."""
        async with Http1.open(connect_timeout=connect_timeout, read_timeout=read_timeout) as http:
            yield cls(http, AioSession())

    def default_region(self) -> str | None:
        """The region that AWS's configuration names."""
        region: str | None = self._aws.get_config_variable("region")
        return region

    async def complete(self, target: Target, body: bytes) -> Reply:
        """One answer of Converse. Raises ProviderCallError."""
        async with self._call(target, "converse", body) as response:
            return _reply(response, await response.read())

    async def invoke(self, target: Target, body: bytes) -> Reply:
        """One answer of a model with a shape of its own, such as embeddings. Raises ProviderCallError."""
        async with self._call(target, "invoke", body) as response:
            return _reply(response, await response.read())

    async def count(self, target: Target, body: bytes) -> int:
        """The input tokens that CountTokens counts. Raises ProviderCallError."""
        # It knows models, not the inference profiles that lead to them.
        model = replace(target, model_id=_PROFILE.sub("", target.model_id))
        async with self._call(model, "count-tokens", body) as response:
            return int(_reply(response, await response.read()).body["inputTokens"])

    @contextlib.asynccontextmanager
    async def stream(self, target: Target, body: bytes) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of ConverseStream as they come. Leaving the context early ends the call at the provider.

        Raises ProviderCallError, on entering when Bedrock refused the call, within when it failed half-way.
        """
        async with self._call(target, "converse-stream", body) as response:
            try:
                yield _events(response, target.region)
            finally:
                # A connection with events still on it cannot be used again; closing it tells Bedrock to stop.
                response.close()

    @contextlib.asynccontextmanager
    async def _call(self, target: Target, operation: str, body: bytes) -> AsyncIterator[Response]:
        endpoint = self._endpoints.get(target.region) or await self._endpoint(target.region)
        url = _url(endpoint.url, target.model_id, operation)
        headers = await self._headers(target, endpoint.signer, url, body)
        with _failures_told(target.region):
            async with self._http.post(url, headers, body) as response:
                if response.status != 200:
                    raise _failure(response, await response.read())
                yield response

    async def _headers(self, target: Target, signer: Signer, url: Url, body: bytes) -> dict[str, str]:
        if api_key := target.api_key or self._platform_api_key():
            return _HEADERS | {"Authorization": f"Bearer {api_key}"}
        credentials = await self._frozen_credentials()
        return signer.sign(credentials, url.authority, url.path, _HEADERS, body, time())

    def _platform_api_key(self) -> str | None:
        return None if self._token is None else self._token.get_frozen_token().token

    async def _endpoint(self, region: str) -> _Endpoint:
        # botocore's client knows every way to configure an endpoint; it is made once a region, for that alone.
        async with self._aws.create_client(_SERVICE, region_name=region) as client:
            endpoint = _Endpoint(client.meta.endpoint_url.rstrip("/"), Signer(_SIGNING_NAME, region))
        self._endpoints[region] = endpoint
        return endpoint

    async def _frozen_credentials(self) -> Any:
        try:
            if self._credentials is None:
                self._credentials = await self._aws.get_credentials()
            if self._credentials is not None:
                return await self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise ProviderCallError(FailureKind.REFUSED, f"the AWS credentials cannot be had: {error}") from error
        raise ProviderCallError(FailureKind.REFUSED, "no AWS credentials are configured for Bedrock")


@lru_cache(1024)
def _url(endpoint: str, model_id: str, operation: str) -> Url:
    return Url.parse(f"{endpoint}/model/{quote(model_id, safe='')}/{operation}")


def _reply(response: Response, data: bytes) -> Reply:
    counted = response.headers.get("x-amzn-bedrock-input-token-count")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ProviderCallError(FailureKind.BROKEN_OFF, "Bedrock answered with something that is no JSON") from error
    return Reply(body, _request_id(response), int(counted) if counted is not None else None)


@contextlib.contextmanager
def _failures_told(region: str) -> Iterator[None]:
    try:
        yield
    except ConnectError as error:
        raise ProviderCallError(FailureKind.UNREACHABLE, f"Bedrock in {region} cannot be reached") from error
    except SilenceError as error:
        raise ProviderCallError(FailureKind.TIMED_OUT, f"Bedrock did not answer in time in {region}") from error
    except BrokenOffError as error:
        raise ProviderCallError(FailureKind.BROKEN_OFF, f"Bedrock in {region} broke off: {error}") from error


async def _events(response: Response, region: str) -> AsyncIterator[Event]:
    buffer = EventStreamBuffer()
    with _failures_told(region):
        async for data in response.chunks():
            buffer.add_data(data)
            for message in buffer:
                yield _event(message, _request_id(response))


def _event(message: Any, request_id: str) -> Event:
    headers = message.headers
    payload = orjson.loads(message.payload) if message.payload else {}
    if headers.get(":message-type") == "event":
        return Event(headers[":event-type"], payload)
    name = headers.get(":exception-type") or headers.get(":error-code", "")
    # In a stream, exceptions are named with a small first letter.
    kind = _KINDS.get(name[:1].upper() + name[1:], FailureKind.UNAVAILABLE)
    raise ProviderCallError(kind, payload.get("message") or headers.get(":error-message") or name, request_id)


def _failure(response: Response, data: bytes) -> ProviderCallError:
    # The type may carry a namespace after a colon.
    name = (response.headers.get("x-amzn-errortype") or "").split(":")[0]
    kind = _KINDS.get(name, FailureKind.UNAVAILABLE if response.status >= 500 else FailureKind.REFUSED)
    return ProviderCallError(kind, _message(data) or f"{name or 'an error'} ({response.status})", _request_id(response))


def _message(data: bytes) -> str:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return ""
    return str(body.get("message") or body.get("Message") or "") if isinstance(body, dict) else ""


def _request_id(response: Response) -> str:
    return response.headers.get("x-amzn-requestid") or ""
