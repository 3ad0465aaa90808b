"""Answers on the wire: what is written in one turn of the event loop goes out in one piece.

Uvicorn writes the head and the body of an answer one after the other, and uvloop passes each on at once: two system
calls, two packets and two wake-ups of whoever reads, where one does.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class GatheringHttp(HttpToolsProtocol):
    """Uvicorn's protocol on a transport that gathers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a connection."""
        super().connection_made(cast("asyncio.Transport", _Gathering(cast("asyncio.Transport", transport))))


class _Gathering:
    """A transport whose writes wait for the end of this turn of the loop; all else is the transport's own."""

    __slots__ = ("_gathered", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._gathered and not self._transport.is_closing():
            self._transport.write(b"".join(self._gathered))
        self._gathered.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
