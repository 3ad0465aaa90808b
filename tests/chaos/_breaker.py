"""A wire to the provider that breaks where a request says: ``break reset after 120 bytes`` somewhere in its body."""

import asyncio
import re
import socket
import struct
from types import TracebackType
from typing import Self

_WISH = re.compile(rb"break (reset|close|silence) after (\d+) bytes")
# With these, closing a socket sends a TCP reset.
_RESET = struct.pack("ii", 1, 0)


class Breaker:
    """Listens on a free loopback port and passes on to `upstream`.

    ``reset`` ends the connection with a TCP reset, ``close`` in good order, ``silence`` keeps it and says nothing more.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.broken = 0

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
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        wish: list[tuple[bytes, int]] = []
        asking = asyncio.create_task(self._ask(reader, up_writer, wish))
        try:
            await self._answer(up_reader, writer, wish)
        except ConnectionError:
            pass
        finally:
            asking.cancel()
            up_writer.close()
            writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter, wish: list[tuple[bytes, int]]
    ) -> None:
        while data := await reader.read(65536):
            if found := _WISH.search(data):
                wish[:] = [(found[1], int(found[2]))]
            up_writer.write(data)
        up_writer.close()

    async def _answer(
        self, up_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wish: list[tuple[bytes, int]]
    ) -> None:
        sent = 0
        while data := await up_reader.read(65536):
            if wish and sent + len(data) > wish[0][1]:
                writer.write(data[: wish[0][1] - sent])
                await self._break(writer, wish[0][0])
                return
            sent += len(data) if wish else 0
            writer.write(data)
            await writer.drain()

    async def _break(self, writer: asyncio.StreamWriter, how: bytes) -> None:
        self.broken += 1
        await writer.drain()
        if how == b"silence":
            await asyncio.Event().wait()
        if how == b"reset":
            # What was written so far shall arrive, as far as the network is concerned.
            await asyncio.sleep(0.02)
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
