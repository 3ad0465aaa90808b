"""uvicorn's WebSocket protocol, but for two things that a stream of answers needs."""

import asyncio
import socket

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# What the kernel may hold for a client that does not read; the default is several megabytes each.
_SEND_BUFFER_BYTES = 64 * 1024


class Protocol(WebSocketsSansIOProtocol):
    """Bounded buffers, and no waiting for a client that stopped reading."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what may lie unread on its way."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    async def run_asgi(self) -> None:
        """Run the application; what was never read when it ended is dropped, and does not keep the connection open."""
        await super().run_asgi()
        if not self.writable.is_set():
            self.transport.abort()
