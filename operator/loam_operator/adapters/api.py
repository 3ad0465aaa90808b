"""Requests to a Kubernetes API server, by the official client's configuration and connection pool."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from loam_shared.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    LoamError,
    NotFoundError,
    UnavailableError,
)

_ERRORS: dict[int, type[LoamError]] = {
    400: InvalidRequestError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidRequestError,
}
_REQUEST_SECONDS = 30
_WATCH_SECONDS = 240
# A healthy watch gets a bookmark about once a minute; one that is silent for longer is dead, whatever TCP says.
_SILENCE_SECONDS = 90


class Expired(UnavailableError):  # noqa: N818 - it asks for a new list, it is no fault
    """A watch cannot go on from where it was."""


@dataclass(frozen=True)
class Access:
    """Where the API is, and what proves who we are; for another client of the same API."""

    server: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    scheme: str | None
    token: str | None
    verify: bool


class Api:
    """JSON in, JSON out; statuses become errors of `loam_shared.errors`."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> "Api":
        """By the pod's ServiceAccount in a cluster, else by the kubeconfig (the current one unless named)."""
        configuration = Configuration()
        if kubeconfig is None and _is_in_cluster():
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        configuration.connection_pool_maxsize = 0
        return cls(ApiClient(configuration))

    async def access(self) -> Access:
        """How we connect, with a token that is fresh."""
        configuration = self._client.configuration
        header = await configuration.get_api_key_with_prefix("BearerToken")
        scheme, _, token = (header or "").rpartition(" ")
        return Access(
            server=configuration.host,
            ca_file=configuration.ssl_ca_cert,
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
            scheme=scheme or None,
            token=token or None,
            verify=configuration.verify_ssl,
        )

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """One call. Raises the error that stands for its status; UnavailableError when there was no answer."""
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                response = await self._send(method, path, query, body, content_type, _REQUEST_SECONDS)
                content = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"the Kubernetes API did not answer: {error}") from error
        if response.status >= 400:
            raise _error(response.status, content)
        answer: dict[str, Any] = json.loads(content)
        return answer

    async def stream(self, path: str, *, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The lines of a watch, until the server ends it or it falls silent."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=_SILENCE_SECONDS)
        query = {**query, "timeoutSeconds": str(_WATCH_SECONDS)}
        response = None
        try:
            response = await self._send("GET", path, query, None, "application/json", timeout)
            if response.status >= 400:
                raise _error(response.status, await response.read())
            async for line in response.content:
                yield line
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"the watch was cut: {error}") from error
        finally:
            if response is not None:
                response.close()

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Any, content_type: str, patience: Any
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        url = path + (f"?{urlencode(query)}" if query else "")
        serialized = await self._client.param_serialize(
            method, url, header_params=headers, query_params=[], body=body, auth_settings=["BearerToken"]
        )
        answer = await self._client.call_api(*serialized, _request_timeout=patience)
        response: aiohttp.ClientResponse = answer.response
        return response


def _error(status: int, content: bytes) -> LoamError:
    try:
        message = json.loads(content)["message"]
    except (ValueError, KeyError):
        message = content.decode(errors="replace")[:500]
    if status == 410:
        return Expired(message)
    return _ERRORS.get(status, UnavailableError)(message)


def _is_in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ
