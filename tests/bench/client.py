"""A client that costs next to nothing: HTTP/1.1 over connections that it keeps, requests as bytes made beforehand."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import httptools

FIRST_WORDS = b"a word or two"


class Target:
    """Where requests go and how they look. `body` makes the body of request number n, so that no two are alike."""

    def __init__(self, url: str, bearer: str, body: Callable[[int], bytes]) -> None:
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), int(parts.port or 80)
        self._head = (
            f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {bearer}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode()
        self._body = body
        self._made = 0

    def request(self) -> bytes:
        self._made += 1
        body = self._body(self._made)
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self.first: asyncio.Future[float] = self._loop.create_future()
        self._done: asyncio.Future[None] = self._loop.create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("the server hung up"))

    def begin(self, request: bytes) -> None:
        """Send a request. `first` is set when the first words of its answer come, to their moment."""
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._done, self.first = self._loop.create_future(), self._loop.create_future()
        self._transport.write(request)

    async def ask(self, request: bytes) -> None:
        """Send a request and wait for the whole answer. Raises RuntimeError for any that is not 200."""
        self.begin(request)
        await self._done
        if (status := self._parser.get_status_code()) != 200:
            raise RuntimeError(f"the answer was {status}: {self._body[:500]!r}")

    async def done(self) -> None:
        await self._done

    @property
    def open(self) -> bool:
        return not self._transport.is_closing()

    def close(self) -> None:
        self._done.cancel()
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body
        if not self.first.done() and FIRST_WORDS in self._body:
            self.first.set_result(time.perf_counter())

    def on_message_complete(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


class Client:
    """Connections to one target, opened as they are needed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._free: list[Connection] = []
        self._opened: list[Connection] = []

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._opened:
            connection.close()

    async def connection(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        _transport, connection = await loop.create_connection(Connection, self._target.host, self._target.port)
        self._opened.append(connection)
        return connection

    async def call(self) -> float:
        """Ask once. Returns the seconds from the sending to the whole answer."""
        connection = await self.connection()
        request, sent = self._target.request(), time.perf_counter()
        await connection.ask(request)
        self._free.append(connection)
        return time.perf_counter() - sent

    async def first_words(self) -> float:
        """Ask for a stream. Returns the seconds from the sending to the first words, once all have come."""
        connection = await self.connection()
        request, sent = self._target.request(), time.perf_counter()
        await connection.ask(request)
        self._free.append(connection)
        return connection.first.result() - sent

    async def open_stream(self) -> None:
        """Ask for a stream, and leave it open once its first words have come."""
        connection = await self.connection()
        connection.begin(self._target.request())
        await connection.first


async def closed_loop(client: Client, connections: int, seconds: float) -> tuple[list[float], float]:
    """As fast as `connections` callers can, each waiting for its answer. The latencies, and how long it took in all."""
    times: list[float] = []
    begun = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - begun < seconds:
            times.append(await client.call())

    await asyncio.gather(*[caller() for _ in range(connections)])
    return times, time.perf_counter() - begun


async def open_loop(call: Callable[[], Awaitable[float]], rate: float, seconds: float) -> list[float]:
    """So many calls a second, sent on time whether or not earlier ones were answered. Their results."""
    loop = asyncio.get_running_loop()
    begun, calls = loop.time(), []
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
        calls.append(asyncio.ensure_future(call()))
    return await asyncio.gather(*calls)
