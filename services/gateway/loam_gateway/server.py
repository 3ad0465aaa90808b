"""The process: opens the listeners, connects what they need, serves, and drains on SIGTERM."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from loam_gateway import app as apps
from loam_gateway.settings import Settings
from loam_gateway.startup import StartupError, connected
from loam_gateway.state import Runtime


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Raises StartupError when a port is taken or a dependency does not come up."""
    runtime, stop = Runtime(settings), _stop_on_signals()
    listeners = [
        _Listener(apps.public(runtime), settings, settings.public_port),
        _Listener(apps.internal(runtime), settings, settings.internal_port),
        _Listener(apps.admin(runtime), settings, settings.admin_port),
    ]
    for listener in listeners:
        listener.open()
    try:
        async with connected(runtime, stop):
            await stop.wait()
            runtime.draining, runtime.reason = True, "it is shutting down"
            # The public door closes first: what is under way behind it still needs the internal one.
            for listener in listeners:
                await listener.close()
    finally:
        for listener in listeners:
            await listener.close()
    return 0


class _Server(uvicorn.Server):
    """Signals are the process's business, not a listener's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Listener:
    """An application on a port. The port is taken at once, so that a port in use is known before anything starts."""

    def __init__(self, app: ASGIApp, settings: Settings, port: int) -> None:
        self._socket = _bind(settings.host, port)
        self._server = _Server(_config(app, settings))
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def close(self) -> None:
        """Accept nothing more, and give what is under way the time of `drain_timeout`."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def _config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
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
