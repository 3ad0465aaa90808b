"""HTTP/1.1 for calls that are many: a POST, and its answer whole or as it comes, over connections that are kept.

No redirects, cookies, proxies or compression: a model's provider needs none, and a general client's readiness for them
costs more than the call.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from aiohappyeyeballs import start_connection
from yarl import URL

from loam_gateway.adapters.http1_connection import BrokenOffError, ConnectError, Connection, Connections, Response

# The next address of a host is tried beside one that has not answered by then (RFC 8305).
_NEXT_ADDRESS_SECONDS = 0.25
_PLAIN = re.compile(r"[!-~]+")


class Origin(NamedTuple):
    """What a connection leads to."""

    tls: bool
    host: str
    port: int


class Url(NamedTuple):
    """Where to post. `authority` is the Host header as it is sent, and `path` the target, both as they are signed."""

    origin: Origin
    authority: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "Url":
        """The parts of an absolute URL that is already quoted. Raises ValueError."""
        url = URL(text, encoded=True)
        if not _PLAIN.fullmatch(text) or url.scheme not in {"http", "https"} or not (url.raw_host and url.port):
            raise ValueError(f"{text!r} is no URL to post to")
        origin = Origin(url.scheme == "https", url.raw_host.rstrip("."), url.port)
        return cls(origin, url.host_port_subcomponent or "", url.raw_path)


class Http1:
    """The client. `open` makes one; it lives as long as the process."""

    def __init__(self, connect_timeout: float, read_timeout: float) -> None:
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._tls = ssl.create_default_context()
        self._idle: dict[Origin, Connections] = {}
        self._connections: Connections = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, *, connect_timeout: float, read_timeout: float) -> AsyncIterator["Http1"]:
        """A client that waits so many seconds for a connection, and for the next byte of an answer."""
        http = cls(connect_timeout, read_timeout)
        try:
            yield http
        finally:
            for connection in list(http._connections):
                connection.end(BrokenOffError("the client was closed"))
            # Transports say good-bye in the loop's next turn.
            await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def post(self, url: Url, headers: Mapping[str, str], body: bytes) -> AsyncIterator[Response]:
        """The answer, once its head is there. Leaving the context before its end closes the connection.

        Raises HttpError, and ValueError for a header with a line break.
        """
        request = _request(url, headers, body)
        connection = self._kept(url.origin) or await self._connected(url.origin)
        response = connection.send(request)
        try:
            await response.begun()
            yield response
        finally:
            connection.release()

    def _kept(self, origin: Origin) -> Connection | None:
        """The connection that was used last: it is the least likely to be closing, and the others may grow old."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.popitem()[0]
            if connection.usable():
                return connection
        return None

    async def _connected(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(self._read_timeout, self._idle.setdefault(origin, {}), self._connections)
        tls, name = (self._tls, origin.host) if origin.tls else (None, None)
        try:
            async with asyncio.timeout(self._connect_timeout):
                addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
                sock = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1)
                await loop.create_connection(lambda: connection, sock=sock, ssl=tls, server_hostname=name)
        except OSError as error:
            raise ConnectError(str(error) or "it did not take the connection in time") from error
        if not connection.usable():
            raise ConnectError("it closed the connection at once")
        return connection


def _request(url: Url, headers: Mapping[str, str], body: bytes) -> bytes:
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    # A line break within a field would begin another one, or the body.
    if not fields.count("\r") == fields.count("\n") == len(headers):
        raise ValueError("a header has a line break")
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.authority}\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    return head.encode() + body
