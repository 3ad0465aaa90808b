"""A connection of HTTP/1.1 and the answers on it: llhttp reads the protocol; this moves bytes and keeps time."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import cast

import httptools

# Shorter than servers and load balancers keep idle connections, so that no call goes into a closing one.
_IDLE_SECONDS = 20.0
# How much of an answer waits for its reader before the server has to, and how much a whole one may be.
_UNREAD_BYTES = 256 * 2**10
_BODY_BYTES = 64 * 2**20
# Of a head, of trailers, of anything between two bytes of a body.
_FRAMING_BYTES = 64 * 2**10


class HttpError(Exception):
    """A call without an answer."""


class ConnectError(HttpError):
    """The server cannot be reached, or not in time. Nothing was sent."""


class SilenceError(HttpError):
    """The server took the request, and then said nothing for too long."""


class BrokenOffError(HttpError):
    """The connection ended before the answer did, or what came was no HTTP."""


class Headers:
    """The header fields of an answer; of one that was sent twice, the first."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields: dict[bytes, bytes] = {}

    def add(self, name: bytes, value: bytes) -> None:
        """Take a field as it came."""
        self._fields.setdefault(name.lower(), value)

    def get(self, name: str) -> str | None:
        """The value of `name`, in whatever case it was sent."""
        value = self._fields.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")


class Response:
    """An answer, whose body one reader takes, whole or as it comes."""

    __slots__ = ("_connection", "_error", "_pieces", "_waiter", "complete", "headers", "status", "unread")

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers = Headers()
        self.complete = False
        self.unread = 0
        self._connection = connection
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: HttpError | None = None

    async def begun(self) -> None:
        """Wait for the head. Raises HttpError."""
        while not self.status:
            await self._news()

    async def read(self) -> bytes:
        """The whole body. Raises HttpError."""
        pieces, size = [], 0
        async for data in self.chunks():
            pieces.append(data)
            size += len(data)
            if size > _BODY_BYTES:
                self.close()
                raise BrokenOffError("its answer is too long")
        return b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; who takes it slowly makes the server wait. Raises HttpError."""
        while True:
            while not self._pieces:
                if self.complete:
                    return
                await self._news()
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self.unread = 0
            self._connection.go_on()
            yield data

    def close(self) -> None:
        """End the connection now, unless the answer has ended: the server need not go on."""
        if not self.complete:
            self._connection.end(BrokenOffError("it was closed"))

    def add(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._pieces.append(data)
        self.unread += len(data)

    def fail(self, error: HttpError) -> None:
        """The answer will not come to its end."""
        if self._error is None and not self.complete:
            self._error = error
            self.wake()

    def wake(self) -> None:
        """Tell the reader that there is news."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _news(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


class Connection(asyncio.Protocol):
    """One connection, on which one answer at a time is under way. It lists itself where it is idle, and where open."""

    _transport: asyncio.Transport

    def __init__(self, read_timeout: float, idle: "Connections", connections: "Connections") -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._read_timeout = read_timeout
        self._idle, self._connections = idle, connections
        # The answer under way, or the last one, when it is complete. Before the first there is one that was.
        self._response = Response(self)
        self._response.complete = True
        self._keep = self._until_close = self._paused = False
        self._framing = 0
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def usable(self) -> bool:
        """Whether a call may begin on it."""
        return not self._transport.is_closing() and self._loop.time() < self._deadline

    def send(self, request: bytes) -> Response:
        """Begin a call."""
        self._response = response = Response(self)
        self._keep, self._until_close, self._framing = False, False, 0
        self._transport.write(request)
        self._expect(self._read_timeout)
        return response

    def release(self) -> None:
        """The call is over: keep the connection if nothing of it is left there."""
        left = not self._response.complete or self._response.unread or self._transport.get_write_buffer_size()
        if left or not self._keep or self._transport.is_closing():
            self.end(BrokenOffError("the call is over"))
        else:
            self._idle[self] = None
            self._expect(_IDLE_SECONDS)

    def end(self, error: HttpError) -> None:
        """Close the connection at once, and let an answer that is not whole fail."""
        self._response.fail(error)
        self._transport.abort()

    def go_on(self) -> None:
        """Receive again: what has come was taken."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
            self._expect(self._read_timeout)

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are such in all but name.
        self._transport = cast("asyncio.Transport", transport)
        self._connections[self] = None

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response.complete:
            self.end(BrokenOffError("it answered without being asked"))
            return
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.end(BrokenOffError(str(error) or "what it answered is no HTTP"))
        if self._framing > _FRAMING_BYTES:
            self.end(BrokenOffError("its headers are too long"))
        self._paused = response.unread > _UNREAD_BYTES and not self._transport.is_closing()
        if self._paused:
            self._transport.pause_reading()
        # Nobody waits for a server that has to wait.
        self._expect(math.inf if self._paused else self._read_timeout)
        response.wake()

    def resume_writing(self) -> None:
        # The server took a piece of a long request.
        if not self._paused:
            self._expect(self._read_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.pop(self, None)
        self._idle.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        if self._until_close and exc is None:
            self._response.complete = True
            self._response.wake()
        self._response.fail(BrokenOffError(str(exc or "it closed the connection")))

    # Called by the parser.

    def on_message_begin(self) -> None:
        if self._response.complete:
            raise BrokenOffError("it answered more than it was asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        # After the head come trailers, of which nobody wants to know.
        if not self._response.status:
            self._response.headers.add(name, value)

    def on_headers_complete(self) -> None:
        status, response = self._parser.get_status_code(), self._response
        if status < 200:
            # Interim: the answer is yet to come.
            response.headers = Headers()
            return
        response.status, self._keep = status, self._parser.should_keep_alive()
        self._until_close = not (response.headers.get("content-length") or response.headers.get("transfer-encoding"))

    def on_body(self, data: bytes) -> None:
        self._framing = 0
        self._response.add(data)

    def on_message_complete(self) -> None:
        self._response.complete = bool(self._response.status)

    # Time: one timer, which is set anew only when it rings, or would ring too late.

    def _expect(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        if self._deadline < self._rings_at:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        if self._loop.time() >= self._deadline:
            self.end(SilenceError("it said nothing for too long"))
        elif self._deadline < math.inf:
            self._set_timer()


Connections = dict[Connection, None]
