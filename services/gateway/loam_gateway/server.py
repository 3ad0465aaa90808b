"""The process: opens the listeners, connects what they need, serves, and drains on SIGTERM."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from loam_gateway import app as apps
from loam_gateway.public.ws.protocol import Protocol
from loam_gateway.settings import Settings
from loam_gateway.startup import StartupError, connected
from loam_gateway.state import Runtime
from loam_gateway.wire import GatheringHttp

# What still runs when a listener closes had the whole `drain_timeout`. The last answers still have to be written out.
_LAST_MOMENT_SECONDS = 1
# And those that were cut are still settled.
_SETTLING_SECONDS = 5.0
# Longer than load balancers keep idle connections (an ALB does for 60 s), so that they never write into a closing one.
_KEEP_ALIVE_SECONDS = 75


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Raises StartupError when a port is taken or a dependency does not come up."""
    runtime, stop = Runtime(settings), _stop_on_signals()
    door = apps.public(runtime)
    listeners = [
        _Listener(door, settings, settings.public_port, Protocol),
        _Listener(apps.internal(runtime), settings, settings.internal_port),
        _Listener(apps.admin(runtime), settings, settings.admin_port),
    ]
    for listener in listeners:
        listener.open()
    try:
        async with connected(runtime, stop):
            _spare_collections()
            await stop.wait()
            runtime.draining, runtime.reason = True, "it is shutting down"
            if runtime.state is not None:
                runtime.state.sockets.draining.set()
            await door.emptied(settings.drain_timeout)
            # The public door closes first: what is under way behind it still needs the internal one.
            for listener in listeners:
                await listener.close()
            await door.emptied(_SETTLING_SECONDS)
    finally:
        for listener in listeners:
            await listener.close()
    return 0


def _spare_collections() -> None:
    """Look for garbage in cycles less often, and never again among what stays: modules, routes, schemas."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


class _Server(uvicorn.Server):
    """Signals are the process's business, not a listener's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Listener:
    """An application on a port. The port is taken at once, so that a port in use is known before anything starts."""

    def __init__(
        self, app: ASGIApp, settings: Settings, port: int, websockets: type[asyncio.Protocol] | None = None
    ) -> None:
        self._socket = _bind(settings.host, port)
        self._server = _Server(_config(app, settings, websockets))
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def close(self) -> None:
        """Accept nothing more; what is under way is cut, and settled."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def _config(app: ASGIApp, settings: Settings, websockets: type[asyncio.Protocol] | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=GatheringHttp,
        ws=websockets or "none",
        ws_max_size=settings.max_body_bytes,
        ws_ping_timeout=settings.websocket_stall_seconds,
        # Frames are a few words each, and every compressor would keep its window in memory.
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_LAST_MOMENT_SECONDS,
    )


def _bind(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
