"""A wire to PostgreSQL that can be cut: before a request arrives, or after it was done and before that is heard."""

import asyncio
import contextlib
from types import TracebackType
from typing import Literal, Self


class Wire:
    """Listens on a free loopback port and passes bytes on. `cut` arms it for the next bytes in that direction."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._armed: Literal["request", "answer"] | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.cuts = 0
        self.down = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self, direction: Literal["request", "answer"]) -> None:
        """Break the connection that next has bytes in this direction; they are lost."""
        self._armed = direction

    def cut_all(self) -> None:
        """Break every connection at once; what the server has not read yet, it will still read."""
        for task in list(self._tasks):
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.down:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        ways = [
            asyncio.create_task(self._pass(reader, up_writer, "request")),
            asyncio.create_task(self._pass(up_reader, writer, "answer")),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.transport.abort()
            # As a broken network does it: the server is not told, and goes on with what it has.
            up_writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await up_writer.wait_closed()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Literal["request", "answer"]
    ) -> None:
        while data := await reader.read(65536):
            if self._armed == direction:
                self._armed = None
                self.cuts += 1
                return
            writer.write(data)
            await writer.drain()
